/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of dicts and loops, and which value has which. One thread per rendering. */
#include <string.h>

#include "tokenizer/jinja/jinja_methods.h"

#define METHOD(name) static struct jv name(struct jr *r, struct jv self, const struct jargs *args)

/* ---- dicts and loops ---- */

METHOD(jm_get)
{
    if (args->npos == 0) return jfail(r, ERR_INVALID, "get needs a key");
    const struct jv *v = jv_dict_get(self.dict, args->pos[0]);
    if (v != NULL) return *v;
    return args->npos > 1 ? args->pos[1] : jv_none();
}

METHOD(jm_items)
{
    (void)args;
    const struct jv_dict *d = self.dict;
    struct jv_list *l = jv_list_new(r->a, d->n);
    if (l == NULL || !jpay(r, d->n)) return jnomem(r);
    for (uint32_t i = 0; i < d->n; i++) {
        struct jv_list *pair = jv_list_new(r->a, 2);
        if (pair == NULL) return jnomem(r);
        pair->items[0] = d->pairs[i].key;
        pair->items[1] = d->pairs[i].value;
        l->items[i] = jv_of_list(JV_TUPLE, pair);
    }
    return jv_of_list(JV_LIST, l);
}

static struct jv column(struct jr *r, const struct jv_dict *d, bool values)
{
    struct jv_list *l = jv_list_new(r->a, d->n);
    if (l == NULL || !jpay(r, d->n)) return jnomem(r);
    for (uint32_t i = 0; i < d->n; i++) l->items[i] = values ? d->pairs[i].value : d->pairs[i].key;
    return jv_of_list(JV_LIST, l);
}

METHOD(jm_keys)
{
    return (void)args, column(r, self.dict, false);
}
METHOD(jm_values)
{
    return (void)args, column(r, self.dict, true);
}
METHOD(jm_copy)
{
    return (void)r, (void)args, self;
}

METHOD(jm_cycle)
{
    const struct jloop *l = self.p;
    if (args->npos == 0) return jfail(r, ERR_INVALID, "loop.cycle of nothing");
    return args->pos[l->index % args->npos];
}

METHOD(jm_changed)
{
    struct jloop *l = self.p;
    struct jv_list *now = jv_list_new(r->a, args->npos);
    if (now == NULL) return jnomem(r);
    if (args->npos > 0) memcpy(now->items, args->pos, args->npos * sizeof *now->items);
    struct jv v = jv_of_list(JV_TUPLE, now);
    bool changed = !l->has_changed || !jequal(r, l->changed, v);
    l->has_changed = true;
    l->changed = v;
    return jv_bool(changed);
}

/* ---- the table ---- */

enum { OF_STR = 1, OF_DICT = 2, OF_LIST = 4, OF_LOOP = 8 };

static const struct method {
    const char *name;
    uint8_t n, of;
    jmethod_fn *fn;
} methods[] = {
#define M(name, of)                            \
    {                                          \
#name, sizeof #name - 1, of, jm_##name \
    }
    M(startswith, OF_STR),
    M(endswith, OF_STR),
    M(strip, OF_STR),
    M(lstrip, OF_STR),
    M(rstrip, OF_STR),
    M(split, OF_STR),
    M(rsplit, OF_STR),
    M(splitlines, OF_STR),
    M(partition, OF_STR),
    M(rpartition, OF_STR),
    M(upper, OF_STR),
    M(lower, OF_STR),
    M(title, OF_STR),
    M(capitalize, OF_STR),
    M(swapcase, OF_STR),
    M(replace, OF_STR),
    M(find, OF_STR),
    M(rfind, OF_STR),
    M(join, OF_STR),
    M(removeprefix, OF_STR),
    M(isspace, OF_STR),
    M(isdigit, OF_STR),
    M(isalpha, OF_STR),
    M(removesuffix, OF_STR),
    M(isalnum, OF_STR),
    M(isupper, OF_STR),
    M(islower, OF_STR),
    M(format, OF_STR),
    M(get, OF_DICT),
    M(items, OF_DICT),
    M(keys, OF_DICT),
    M(values, OF_DICT),
    M(cycle, OF_LOOP),
    M(changed, OF_LOOP),
    M(copy, OF_DICT | OF_LIST),
    M(index, OF_STR | OF_LIST),
    M(count, OF_STR | OF_LIST),
#undef M
};

unsigned jmethod_named(struct str name)
{
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++)
        if (methods[i].n == name.n && memcmp(methods[i].name, name.p, name.n) == 0) return i + 1;
    return 0;
}

bool jmethod_has(struct jv v, unsigned method)
{
    static const uint8_t of[] = {
        [JV_STR] = OF_STR,    [JV_DICT] = OF_DICT,  [JV_LOOP] = OF_LOOP, [JV_LIST] = OF_LIST,
        [JV_TUPLE] = OF_LIST, [JV_RANGE] = OF_LIST, [JV_METHOD] = 0
    };
    return method != 0 && v.type < ARRAY_LEN(of) && (methods[method - 1].of & of[v.type]) != 0;
}

unsigned jmethod_find(struct jv v, struct str name)
{
    unsigned method = jmethod_named(name);
    return jmethod_has(v, method) ? method : 0;
}

struct jv jcall_method(struct jr *r, struct jv self, unsigned method, const struct jargs *args)
{
    ASSERT(method >= 1 && method <= ARRAY_LEN(methods));
    return methods[method - 1].fn(r, self, args);
}
