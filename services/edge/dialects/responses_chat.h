/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request of OpenAI's Responses as the chat that a model is given, so that it is counted as one:
 * instructions become a system message, a text a user's, calls and their results messages of
 * assistant and tool, function tools those of a chat. docs/dialects.md has the rule. Pure.
 */
#ifndef EDGE_RESPONSES_CHAT_H
#define EDGE_RESPONSES_CHAT_H

#include "dialect.h"

struct responses_chat {
    struct buf messages, tools; /* JSON arrays; tools is empty when there are none */
    bool exact;                 /* nothing was left out, and nothing comes on top at the server */
};

/* Between _make() and _done(); _done() also behind an error. ERR_LIMIT, ERR_NOMEM. */
enum err responses_chat_make(const struct request_scan *scan, struct responses_chat *ret) MUSTCHECK;
void responses_chat_done(struct responses_chat *c);

#endif
