/* SPDX-License-Identifier: MIT */
#include <string.h>
#include "base/log.h"
#include "media/media.h"
#include "worker/sandbox.h"

static bool has_ring(void)
{
	struct media_engine *engine;
	bool has;

	if (media_engine_new(&engine, 0, -1) < 0)
		return false;
	has = media_engine_has_ring(engine);
	media_engine_free(engine);
	return has;
}

int sandbox_report(void)
{
	struct sandbox sandbox = { 0 };
	bool ring = has_ring();
	int error = sandbox_enter_keeper(&sandbox, false);

	if (!error)
		error = sandbox_enter_worker(&sandbox);
	if (error)
		log_error("no sandbox here, and no worker without one: %s", strerror(-error));
	else if (!sandbox.own_users || !sandbox.landlock || !ring)
		log_warning("workers go on without what this machine does not give:%s%s%s",
			    sandbox.own_users ? "" : " a user namespace;",
			    sandbox.landlock ? "" : " landlock;",
			    ring ? "" : " io_uring (disks wait for each access);");
	return error;
}
