/* SPDX-License-Identifier: MIT */
/*
 * The system calls of a worker: the one table.
 *
 * A worker moves bytes between descriptors that it has, or is sent, and memory. It opens nothing,
 * makes no socket and no process, and maps nothing executable. Two calls still take a path, because
 * libc has no other way to look at a descriptor: they tell what is there and give access to none.
 *
 * What is not in the table fails with EPERM (sandbox.h).
 */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include "worker/sandbox.h"

#define ALLOW(name, why)                                       \
	{                                                      \
		SCMP_SYS(name), SANDBOX_ALLOW, .reason = (why) \
	}
#define KILL(name, why)                                       \
	{                                                     \
		SCMP_SYS(name), SANDBOX_KILL, .reason = (why) \
	}
#define WITH(name, compare, why)                                                            \
	{                                                                                   \
		SCMP_SYS(name), SANDBOX_ALLOW, .n_args = 1, .arg = compare, .reason = (why) \
	}
#define IS(n, value)                         \
	{                                    \
		(n), SCMP_CMP_EQ, (value), 0 \
	}
#define HAS_NONE_OF(n, bits)                       \
	{                                          \
		(n), SCMP_CMP_MASKED_EQ, (bits), 0 \
	}
#define HAS_ALL_OF(n, bits)                             \
	{                                               \
		(n), SCMP_CMP_MASKED_EQ, (bits), (bits) \
	}

const struct sandbox_rule sandbox_rules[] = {
	/* bytes */
	ALLOW(read, "eventfds, ptys, pipes"),
	ALLOW(write, "eventfds, ptys, pipes, log lines"),
	ALLOW(readv, "as read"),
	ALLOW(writev, "as write; libc's last words"),
	ALLOW(pread64, "the I/O account of this process; media"),
	ALLOW(pwrite64, "ports that are files; media"),
	ALLOW(preadv, "media"),
	ALLOW(pwritev, "media"),
	ALLOW(preadv2, "media"),
	ALLOW(pwritev2, "media"),
	ALLOW(fsync, "media: a guest's flush"),
	ALLOW(fdatasync, "media: a guest's flush"),
	ALLOW(fallocate, "memory of a BAR is zeroed; media: a guest's discard"),
	ALLOW(lseek, "media: where data and holes are"),
	ALLOW(recvmmsg, "connections and the channel"),
	ALLOW(sendmmsg, "connections and the channel"),
	ALLOW(recvmsg, "as recvmmsg"),
	ALLOW(sendmsg, "as sendmmsg"),
	ALLOW(recvfrom, "libc's recv"),
	WITH(sendto, IS(4, 0), "libc's send; no address"),

	/* waiting */
	ALLOW(poll, "is a descriptor ready; libc's poll"),
	ALLOW(ppoll, "libc's poll, where it is no call of its own"),
	ALLOW(epoll_wait, "the loop"),
	ALLOW(epoll_pwait, "the loop, where epoll_wait is no call of its own"),
	ALLOW(epoll_ctl, "the loop"),
	ALLOW(restart_syscall, "after SIGSTOP, or a tracer"),
	ALLOW(futex, "libc's locks"),
	ALLOW(sched_yield, "queue threads that meet"),
	ALLOW(io_uring_enter, "the ring of media, which was made, and restricted, before"),

	/* descriptors: those it has */
	ALLOW(close, "what it was sent"),
	ALLOW(close_range, "what a life before it left"),
	ALLOW(shutdown, "a client is told that its device failed"),
	ALLOW(accept4, "rendezvous, and ports that listen"),
	WITH(getsockopt, IS(1, SOL_SOCKET), "who came to the rendezvous"),
	ALLOW(fstat, "what is this that I was sent"),
	WITH(newfstatat, HAS_ALL_OF(3, AT_EMPTY_PATH), "fstat, as some libcs call it"),
	ALLOW(readlink, "is this an eventfd: the link in /proc/self/fd says"),
	ALLOW(readlinkat, "readlink, where it is no call of its own"),
	WITH(fcntl, IS(1, F_GETFD), "close on exec"),
	WITH(fcntl, IS(1, F_SETFD), "close on exec"),
	WITH(fcntl, IS(1, F_GETFL), "is this file writable"),
	WITH(fcntl, IS(1, F_SETFL), "do not block"),
	WITH(fcntl, IS(1, F_DUPFD_CLOEXEC), "a second descriptor for what it has"),
	WITH(fcntl, IS(1, F_GET_SEALS), "can this memory shrink"),
	WITH(fcntl, IS(1, F_ADD_SEALS), "memory of a BAR, before a client has it"),
	ALLOW(eventfd2, "wakes another thread of this process"),
	ALLOW(memfd_create, "memory of a BAR; cannot be mapped executable, nor executed"),
	ALLOW(ftruncate, "memory of a BAR, and of the state, gets its size"),

	/* memory */
	WITH(mmap, HAS_NONE_OF(2, PROT_EXEC), "guest memory, heap"),
	WITH(mprotect, HAS_NONE_OF(2, PROT_EXEC), "heap"),
	ALLOW(munmap, "guest memory, heap"),
	ALLOW(mremap, "heap that grows"),
	ALLOW(madvise, "heap that shrinks"),
	ALLOW(brk, "heap"),

	/* itself */
	ALLOW(clock_gettime, "time, where the vDSO cannot tell it"),
	ALLOW(gettimeofday, "time, where the vDSO cannot tell it"),
	ALLOW(getrandom, "libc's heap"),
	ALLOW(getpid, "abort()"),
	ALLOW(gettid, "abort()"),
	ALLOW(geteuid, "is it our manager"),
	ALLOW(sysinfo, "libc's qsort: how much memory is there"),
	ALLOW(rt_sigaction, "SIGBUS of a file that was cut short"),
	ALLOW(rt_sigprocmask, "abort()"),
	ALLOW(rt_sigreturn, "SIGBUS of a file that was cut short"),
	WITH(tgkill, IS(0, SANDBOX_OWN_PID), "abort() and raise(): this process, no other"),
	ALLOW(exit, "the end of a thread"),
	ALLOW(exit_group, "the end"),

#ifdef SANDBOX_SANITIZED
	ALLOW(sigaltstack, "sanitizer: the stack that reports run on"),
	ALLOW(sched_getaffinity, "sanitizer: number of CPUs"),
#endif

	/* never by accident */
	KILL(execve, "runs a program"),
	KILL(execveat, "runs a program, maybe from memory"),
	KILL(fork, "makes a process"),
	KILL(vfork, "makes a process"),
	KILL(ptrace, "takes over another process"),
	KILL(process_vm_readv, "reads another process"),
	KILL(process_vm_writev, "writes into another process"),
	KILL(process_madvise, "changes another process"),
	KILL(pidfd_getfd, "takes a descriptor of another process"),
	KILL(kcmp, "looks into another process"),
	KILL(setns, "enters another process's view"),
	KILL(unshare, "makes a view in which it has rights"),
	KILL(mount, "changes the file system"),
	KILL(umount2, "changes the file system"),
	KILL(move_mount, "changes the file system"),
	KILL(open_tree, "changes the file system"),
	KILL(fsopen, "changes the file system"),
	KILL(fsmount, "changes the file system"),
	KILL(pivot_root, "changes the file system"),
	KILL(chroot, "changes the file system"),
	KILL(open_by_handle_at, "opens past all path rules"),
	KILL(bpf, "loads code into the kernel"),
	KILL(init_module, "loads code into the kernel"),
	KILL(finit_module, "loads code into the kernel"),
	KILL(kexec_load, "loads another kernel"),
	KILL(kexec_file_load, "loads another kernel"),
	KILL(reboot, "ends the machine"),
	KILL(userfaultfd, "holds the kernel in a page fault: a part of many exploits"),
	KILL(perf_event_open, "measures others"),
	KILL(add_key, "kernel keys"),
	KILL(request_key, "kernel keys"),
	KILL(keyctl, "kernel keys"),
	KILL(personality, "takes back what protects memory"),
	KILL(modify_ldt, "16-bit segments"),
	KILL(iopl, "ports of the machine"),
	KILL(ioperm, "ports of the machine"),
};
const size_t sandbox_n_rules = sizeof(sandbox_rules) / sizeof(sandbox_rules[0]);
