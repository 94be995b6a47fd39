/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One JSON object per line on stderr: ts, level, svc, instance, msg, then the fields given. Lines
 * are written with one write(2), any thread. ERROR: a person should act. WARN: ends with what we
 * did instead. INFO: life cycle. Never prompts, completions, credentials.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

enum log_kind { LOG_END, LOG_STR, LOG_INT, LOG_BOOL };
struct log_field {
    enum log_kind kind;
    const char *key;
    struct str s;
    int64_t i;
};
/* Fields: log_info("started", LF("port", 8081), LS("bind", addr)) with these constructors. Usual
 * keys: req, ns, err. */
#define LS(k, v) ((struct log_field){ LOG_STR, (k), str_of(v), 0 })
#define LSTR(k, v) ((struct log_field){ LOG_STR, (k), (v), 0 })
#define LI(k, v) ((struct log_field){ LOG_INT, (k), STR_NULL, (int64_t)(v) })
#define LB(k, v) ((struct log_field){ LOG_BOOL, (k), STR_NULL, (v) })
#define LERR(e) LS("err", err_name(e))
#define LOG_FIELDS_END ((struct log_field){ LOG_END, NULL, STR_NULL, 0 })

void log_setup(const char *svc, const char *instance, enum log_level level);
enum err log_level_parse(struct str s, enum log_level *ret) MUSTCHECK;
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *msg, const struct log_field *fields);

#define LOG_AT(level, msg, ...)                                                                 \
    do {                                                                                        \
        if (log_enabled(level))                                                                 \
            log_write(level, msg,                                                               \
                      (const struct log_field[]){ __VA_ARGS__ __VA_OPT__(, ) LOG_FIELDS_END }); \
    } while (0)
#define log_debug(...) LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...) LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...) LOG_AT(LOG_ERROR, __VA_ARGS__)

#endif
