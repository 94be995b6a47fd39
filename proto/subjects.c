/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/subjects.h"

#include <ctype.h>
#include <stdio.h>

#include "base/str.h"

static const struct {
    const char *suffix, *queue;
} subjects[SUBJECT_MAX] = {
#define X(symbol, suffix, queue, ...) { suffix, queue },
    SUBJECTS(X)
#undef X
};

void subject_make(const char *prefix, enum subject which, const char *token, char out[SUBJECT_LEN])
{
    struct str suffix = str_of(subjects[which].suffix);
    struct str fixed = suffix;
    bool takes_token = str_ends(suffix, STR("%s"));
    if (takes_token) fixed.n -= 2;
    ASSERT(takes_token == (token != NULL));
    ASSERT(token == NULL || str_eqz(STR("*"), token) || str_is_slug(str_of(token)));
    int n = snprintf(out, SUBJECT_LEN, "%s.%.*s%s", prefix, STR_ARG(fixed),
                     token != NULL ? token : "");
    ASSERT(n > 0 && n < SUBJECT_LEN);
}

const char *subject_queue(enum subject which)
{
    return subjects[which].queue;
}

void subject_store(const char *prefix, enum bus_store which, char out[SUBJECT_LEN])
{
    static const char *const names[] = {
        [STORE_STREAM_USAGE] = "USAGE",
        [STORE_STREAM_USAGE_DEAD] = "USAGE_DEAD",
        [STORE_BUCKET_CONFIG] = "CONFIG",
        [STORE_BUCKET_CLAIMS] = "CLAIMS",
    };
    int n = snprintf(out, SUBJECT_LEN, "%s_%s", prefix, names[which]);
    ASSERT(n > 0 && n < SUBJECT_LEN);
    for (char *c = out; *c != '\0'; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

bool subject_prefix_is_valid(const char *prefix)
{
    struct str p = str_of(prefix);
    return p.n <= 32 && str_is_slug(p);
}
