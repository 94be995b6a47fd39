/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes: starting one in a group of its own, recording who it is so that a later run can tell
 * it from a stranger with the same number, and ending it with all that it started. Main thread.
 */
#ifndef RUN_PROC_H
#define RUN_PROC_H

#include <stdint.h>
#include <sys/types.h>

#include "plan.h"

/* Log files are cut when they pass this size: the content goes to NAME.log.1. */
enum { LOG_ROTATE_BYTES = 16 * 1024 * 1024 };

/* A process's identity: numbers are used again, the pair with its start time is not (until the next
 * boot, which the file tells apart by the kernel's boot id). */
struct proc_id {
    pid_t pid;
    uint64_t started; /* clock ticks since boot, from /proc */
};

/* ERR_NOT_FOUND when there is no such process (any more). */
enum err proc_identify(pid_t pid, struct proc_id *ret) MUSTCHECK;
bool proc_is_alive(struct proc_id id); /* false for a zombie */

enum err proc_record_write(const char *path, struct proc_id id) MUSTCHECK;
/* ERR_NOT_FOUND: no file, or it is of an earlier boot. ERR_INVALID: not such a file. */
enum err proc_record_read(const char *path, struct proc_id *ret) MUSTCHECK;

/* Starts p with standard output and error appended to log_path; it gets SIGTERM when we die. What
 * cannot be run says so in its log and exits with 127. ERR_IO; ERR_INVALID: its env-file is bad. */
enum err proc_spawn(const struct plan_process *p, const char *log_path, pid_t *ret,
                    struct why *why) MUSTCHECK;
/* To the process and its whole group. */
void proc_signal(pid_t pid, int sig);
/* Ends a process that an earlier supervisor left, and its group: SIGTERM, after grace_ms SIGKILL.
 * Blocks. */
void proc_end_leftover(struct proc_id id, uint64_t grace_ms);

/* Moves the content to path.1 when the file is larger than max. The writer has it open for
 * appending and goes on at its new end. */
enum err log_rotate(const char *path, off_t max) MUSTCHECK;

/* Replaces the file in one step; mode 0600. */
enum err file_write(const char *path, struct str content) MUSTCHECK;

#endif
