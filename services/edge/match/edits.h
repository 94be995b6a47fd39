/* SPDX-License-Identifier: Apache-2.0 */
/* A route's edits of header fields: what it removes or sets goes, then what it sets and adds comes.
 * Pure. */
#ifndef EDGE_EDITS_H
#define EDGE_EDITS_H

#include "base/buf.h"
#include "http/h1.h"
#include "proto/snapshot.h"

static inline bool edits_drop(const struct snap_header_edits *e, struct str name)
{
    for (size_t i = 0; i < e->remove.n; i++)
        if (str_ieq(e->remove.v[i], name)) return true;
    for (size_t i = 0; i < e->set_n; i++)
        if (str_ieq(e->set[i].name, name)) return true;
    return false;
}

static inline enum err MUSTCHECK edits_append(const struct snap_header_edits *e, struct buf *out)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < e->set_n + e->add_n && err == ERR_OK; i++) {
        const struct snap_field *f = i < e->set_n ? &e->set[i] : &e->add[i - e->set_n];
        err = h1_put_field(out, f->name, f->value);
    }
    return err;
}

#endif
