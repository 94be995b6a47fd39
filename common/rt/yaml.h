/* SPDX-License-Identifier: Apache-2.0 */
/*
 * YAML documents as JSON trees (libyaml), for configuration that people write. The JSON subset of
 * YAML 1.2: mappings with string keys, sequences, scalars by the core schema. No anchors, no
 * aliases, no custom tags, one document. Pure, any thread.
 */
#ifndef RT_YAML_H
#define RT_YAML_H

#include "rt/json.h"

/* The text of at most max bytes. ERR_INVALID with the line in why, ERR_LIMIT. */
enum err yaml_parse(struct str text, size_t max, struct json **ret, struct why *why) MUSTCHECK;
/* Block style; what parses back to the same tree. */
enum err yaml_print(const struct json *n, struct buf *out) MUSTCHECK;

#endif
