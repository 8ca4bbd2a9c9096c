/* SPDX-License-Identifier: MIT */
/*
 * Groups: who belongs together, their numbers and the nodes that show them. A group lives from its
 * first to its last member. Membership changes only while nobody uses the group.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/str.h"
#include "core/private.h"

static void group_free(struct mdev_group *group)
{
	struct core *core = group->core;

	assert(group->n_members == 0 && group->n_connected == 0);
	tree_remove(&core->tree, group->class_link);
	tree_remove(&core->tree, group->vfio);
	tree_remove(&core->tree, group->dir);
	uuid_map_remove(&core->p2p_groups, &group->hash_node);
	list_remove(&group->node);
	number_put(&core->group_numbers, group->number - core->first_group);
	free(group);
}

static int group_publish(struct mdev_group *group)
{
	struct core *core = group->core;
	char name[16];

	str_format(name, sizeof(name), "%u", group->number);
	group->dir = tree_add(&core->tree, core->iommu_groups, name, &iommu_group_kind, group);
	group->vfio = tree_add(&core->tree, core->virtual_vfio, name, &vfio_group_kind, group);
	if (!group->dir || !group->vfio)
		return -ENOMEM;
	group->devices = tree_add(&core->tree, group->dir, "devices", &core_dir_kind, NULL);
	group->class_link = tree_add_link_to(&core->tree, core->class_vfio, name, group->vfio);
	return group->devices && group->class_link ? 0 : -ENOMEM;
}

/* p2p: NULL for types without it. A number that the machine's groups have now is below ours. */
static int group_new(struct core *core, const struct uuid *p2p, uint32_t number,
		     struct mdev_group **ret)
{
	struct mdev_group *group = calloc(1, sizeof(*group));
	int error;

	if (!group ||
	    number_take_at(&core->group_numbers, number - core->first_group, &group->number) < 0) {
		free(group);
		return -ENOMEM;
	}
	group->core = core;
	group->number += core->first_group;
	group->owner.pidfd = -1;
	list_init(&group->members);
	list_append(&core->groups, &group->node);
	error = group_publish(group);
	if (!error && p2p) {
		group->p2p = *p2p;
		error = uuid_map_add(&core->p2p_groups, &group->hash_node);
	}
	if (error < 0) {
		group_free(group);
		return error;
	}
	*ret = group;
	return 0;
}

static int group_add(struct mdev_group *group, struct umdev_mdev *mdev)
{
	if (!tree_add_link_to(&group->core->tree, group->devices, mdev->uuid_text, mdev->dir))
		return -ENOMEM;
	list_append(&group->members, &mdev->group_node);
	group->n_members++;
	mdev->group = group;
	return 0;
}

struct mdev_group *group_find(const struct core *core, const struct uuid *p2p)
{
	struct list_node *node = uuid_map_find(&core->p2p_groups, p2p);

	return node ? container_of(node, struct mdev_group, hash_node) : NULL;
}

static int group_add_or_new(struct umdev_mdev *mdev, const struct uuid *p2p, uint32_t number)
{
	struct mdev_group *group = p2p ? group_find(mdev->core, p2p) : NULL;
	int error = 0;

	if (!group)
		error = group_new(mdev->core, p2p, number, &group);
	if (!error)
		error = group_add(group, mdev);
	if (error < 0 && group && !group->n_members)
		group_free(group);
	return error;
}

int group_enter(struct umdev_mdev *mdev, uint32_t number)
{
	struct uuid p2p;
	int index = mdev->type->info->p2p;

	if (index < 0)
		return group_add_or_new(mdev, NULL, number);
	uuid_parse(mdev_param(mdev, (unsigned)index)->text, UUID_TEXT - 1, &p2p);
	return group_add_or_new(mdev, &p2p, number);
}

static void group_remove(struct mdev_group *group, struct umdev_mdev *mdev)
{
	struct tree *tree = &group->core->tree;

	tree_remove(tree, tree_child(tree, group->devices, mdev->uuid_text));
	if (--group->n_members == 0)
		group_free(group);
}

void group_leave(struct umdev_mdev *mdev)
{
	struct mdev_group *group = TAKE(mdev->group);

	if (!group)
		return;
	list_remove(&mdev->group_node);
	group_remove(group, mdev);
}

/* The most that a group may have with mdev in it. */
static unsigned most_members(const struct mdev_group *group, const struct umdev_mdev *mdev)
{
	uint32_t most = mdev->type->desc->max_members;
	const struct umdev_mdev *member;

	list_for_each(member, &group->members, group_node) {
		uint32_t its = member->type->desc->max_members;

		if (its && (!most || its < most))
			most = its;
	}
	return most && most < CORE_MAX_MEMBERS ? most : CORE_MAX_MEMBERS;
}

int group_may_join(const struct umdev_mdev *mdev, const struct uuid *p2p)
{
	const struct mdev_group *group = group_find(mdev->core, p2p);
	const struct umdev_parent *parent = mdev->parent;
	const struct umdev_mdev *member;
	unsigned most;

	if (!group)
		return 0;
	member = list_first(&group->members, struct umdev_mdev, group_node);
	if (group_in_use(group))
		return err_set(-EBUSY,
			       "group %u is in use by %s; its members change only when all "
			       "are disconnected",
			       group->number, member->uuid_text);
	if (strcmp(member->parent->p2p_domain, parent->p2p_domain) != 0)
		return err_set(-EXDEV,
			       "group %u is of p2p_domain '%s', %s is of '%s'; give both "
			       "parents the same p2p_domain",
			       group->number, member->parent->p2p_domain, parent->name,
			       parent->p2p_domain);
	most = most_members(group, mdev);
	if (group->n_members >= most)
		return err_set(-ENOSPC, "group %u has %u devices; with %s in it it can have %u",
			       group->number, group->n_members, mdev->type->info->name, most);
	return 0;
}

int group_move(struct umdev_mdev *mdev, const struct uuid *p2p)
{
	struct mdev_group *old = mdev->group;
	char number[16];
	int error;

	if (old->n_members == 1 && !group_find(mdev->core, p2p)) {
		/* Alone before and after: the group takes the value. The add cannot fail for lack
		 * of buckets, one object has just left. */
		uuid_map_remove(&mdev->core->p2p_groups, &old->hash_node);
		old->p2p = *p2p;
		error = uuid_map_add(&mdev->core->p2p_groups, &old->hash_node);
		assert(error == 0);
		return 0;
	}
	list_remove(&mdev->group_node);
	error = group_add_or_new(mdev, p2p, GROUP_ANY);
	if (error < 0) {
		list_append(&old->members, &mdev->group_node);
		return error;
	}
	group_remove(old, mdev);
	str_format(number, sizeof(number), "%u", mdev->group->number);
	mdev_event(mdev, CORE_MDEV_GROUP, number);
	return 0;
}

bool group_in_use(const struct mdev_group *group)
{
	const struct umdev_mdev *member;

	list_for_each(member, &group->members, group_node)
		if (mdev_is_served(member))
			return true;
	return false;
}
