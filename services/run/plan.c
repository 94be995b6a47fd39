/* SPDX-License-Identifier: Apache-2.0 */
#include "plan.h"

#include <arpa/inet.h>
#include <stdlib.h>

/* A process while its lines are read; what points into the text is copied when it is finished. */
struct draft {
    struct plan_process p;
    char *words[PLAN_MAX_WORDS + 1];
    size_t words_n;
    char *env[PLAN_MAX_WORDS + 1];
    struct str after[PLAN_MAX_WORDS];
    size_t after_n;
    struct plan_port ports[8];
    unsigned line; /* where it began */
};

struct parser {
    struct arena *arena;
    struct draft *drafts[PLAN_MAX_PROCESSES];
    size_t n;
    unsigned line;
    struct why *why;
};

static enum err bad(struct parser *ps, const char *what)
{
    return why_set(ps->why, ERR_INVALID, "line %u: %s", ps->line, what);
}

/* A word, or several in double quotes, off the front of *rest. In quotes \" and \\ stand for " and
 * \. p = NULL at the end; ERR_INVALID when a quote is not closed. */
static enum err next_word(struct arena *arena, struct str *rest, struct str *ret)
{
    *rest = str_trim(*rest);
    if (rest->n == 0) return *ret = STR_NULL, ERR_OK;
    char *out = arena_alloc(arena, rest->n + 1);
    if (out == NULL) return ERR_NOMEM;
    size_t i = 0, n = 0;
    bool quoted = false;
    for (; i < rest->n; i++) {
        char c = rest->p[i];
        if (c == '"') {
            quoted = !quoted;
        } else if (quoted && c == '\\' && i + 1 < rest->n &&
                   (rest->p[i + 1] == '"' || rest->p[i + 1] == '\\')) {
            out[n++] = rest->p[++i];
        } else if (!quoted && (c == ' ' || c == '\t')) {
            break;
        } else {
            out[n++] = c;
        }
    }
    if (quoted) return ERR_INVALID;
    out[n] = '\0';
    *ret = (struct str){ out, n };
    *rest = str_trim(str_n(rest->p + i, rest->n - i));
    return ERR_OK;
}

enum err plan_parse_duration(struct str s, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = { { "ms", 1 }, { "s", 1000 }, { "m", 60000 } };
    size_t digits = 0;
    while (digits < s.n && s.p[digits] >= '0' && s.p[digits] <= '9') digits++;
    uint64_t v;
    enum err e = str_to_u64(str_n(s.p, digits), &v);
    if (e != ERR_OK) return e;
    struct str unit = { s.p + digits, s.n - digits };
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (!str_eqz(unit, units[i].unit)) continue;
        if (v > 86400000 / units[i].ms) return ERR_INVALID;
        return *ret_ms = v * units[i].ms, ERR_OK;
    }
    return ERR_INVALID;
}

static enum err parse_port(struct str s, uint16_t *ret)
{
    uint64_t v;
    if (str_to_u64(s, &v) != ERR_OK || v == 0 || v > 65535) return ERR_INVALID;
    return *ret = (uint16_t)v, ERR_OK;
}

enum err plan_parse_url(struct str s, struct arena *arena, struct plan_url *ret)
{
    struct str scheme = STR("http://");
    if (!str_starts(s, scheme)) return ERR_INVALID;
    struct str rest = { s.p + scheme.n, s.n - scheme.n }, host;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f) return ERR_INVALID;
    if (rest.n > 0 && rest.p[0] == '[') {
        rest = str_n(rest.p + 1, rest.n - 1);
        host = str_cut(&rest, ']');
        if (rest.n == 0 || rest.p[0] != ':') return ERR_INVALID;
        rest = str_n(rest.p + 1, rest.n - 1);
    } else {
        host = str_cut(&rest, ':');
    }
    if (rest.p == NULL) return ERR_INVALID;
    struct plan_url u = { 0 };
    size_t slash = 0;
    while (slash < rest.n && rest.p[slash] != '/') slash++;
    enum err e = parse_port(str_n(rest.p, slash), &u.port);
    if (e != ERR_OK) return e;
    u.host = str_eqz(host, "localhost") ? "127.0.0.1" : arena_dupz(arena, host);
    u.path = slash < rest.n ? arena_dupz(arena, str_n(rest.p + slash, rest.n - slash)) : "/";
    if (u.host == NULL || u.path == NULL) return ERR_NOMEM;
    unsigned char address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, u.host, address) != 1 && inet_pton(AF_INET6, u.host, address) != 1)
        return ERR_INVALID;
    return *ret = u, ERR_OK;
}

/* NAME=VALUE with a name that an environment can have. */
static bool is_assignment(struct str s)
{
    size_t i = 0;
    while (i < s.n && s.p[i] != '=') {
        char c = s.p[i];
        bool ok = c == '_' || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                  (i > 0 && c >= '0' && c <= '9');
        if (!ok) return false;
        i++;
    }
    return i > 0 && i < s.n && memchr(s.p, '\0', s.n) == NULL;
}

enum err plan_parse_env(struct str text, struct arena *arena, char ***ret, size_t *ret_n,
                        struct why *why)
{
    size_t lines = 1, n = 0;
    for (size_t i = 0; i < text.n; i++) lines += text.p[i] == '\n';
    char **v = arena_calloc(arena, (lines + 1) * sizeof *v);
    if (v == NULL) return ERR_NOMEM;
    for (unsigned line = 1; text.p != NULL && text.n > 0; line++) {
        struct str s = str_trim(str_cut(&text, '\n'));
        if (s.n == 0 || s.p[0] == '#') continue;
        if (!is_assignment(s)) return why_set(why, ERR_INVALID, "line %u is not NAME=VALUE", line);
        v[n] = arena_dupz(arena, s);
        if (v[n++] == NULL) return ERR_NOMEM;
    }
    *ret = v;
    *ret_n = n;
    return ERR_OK;
}

/* --- one line --- */

static enum err begin_process(struct parser *ps, struct str name)
{
    if (!str_is_slug(name)) return bad(ps, "a process name is 1 to 63 of a-z 0-9 -");
    for (size_t i = 0; i < ps->n; i++)
        if (str_eqz(name, ps->drafts[i]->p.name)) return bad(ps, "a second process of this name");
    if (ps->n == PLAN_MAX_PROCESSES) return ERR_LIMIT;
    struct draft *d = arena_calloc(ps->arena, sizeof *d);
    if (d == NULL) return ERR_NOMEM;
    d->line = ps->line;
    d->p.name = arena_dupz(ps->arena, name);
    if (d->p.name == NULL) return ERR_NOMEM;
    d->p.ready_timeout_ms = PLAN_READY_TIMEOUT_MS;
    d->p.stop_timeout_ms = PLAN_STOP_TIMEOUT_MS;
    ps->drafts[ps->n++] = d;
    return ERR_OK;
}

static enum err set_command(struct parser *ps, struct draft *d, struct str rest)
{
    if (d->words_n > 0) return bad(ps, "a second command");
    for (;;) {
        struct str w;
        enum err e = next_word(ps->arena, &rest, &w);
        if (e == ERR_INVALID) return bad(ps, "a quote is not closed");
        if (e != ERR_OK) return e;
        if (w.p == NULL) break;
        if (d->words_n == PLAN_MAX_WORDS) return bad(ps, "too many words");
        if (memchr(w.p, '\0', w.n) != NULL) return bad(ps, "a NUL byte");
        d->words[d->words_n] = arena_dupz(ps->arena, w);
        if (d->words[d->words_n++] == NULL) return ERR_NOMEM;
    }
    return d->words_n > 0 ? ERR_OK : bad(ps, "command needs a program");
}

static enum err add_env(struct parser *ps, struct draft *d, struct str rest)
{
    if (!is_assignment(rest)) return bad(ps, "env needs NAME=VALUE");
    if (d->p.env_n == PLAN_MAX_WORDS) return bad(ps, "too many env lines");
    d->env[d->p.env_n] = arena_dupz(ps->arena, rest);
    return d->env[d->p.env_n++] != NULL ? ERR_OK : ERR_NOMEM;
}

static enum err add_after(struct parser *ps, struct draft *d, struct str rest)
{
    while (rest.n > 0) {
        struct str w;
        enum err e = next_word(ps->arena, &rest, &w);
        if (e != ERR_OK) return e == ERR_INVALID ? bad(ps, "a quote is not closed") : e;
        if (d->after_n == PLAN_MAX_WORDS) return bad(ps, "too many names");
        d->after[d->after_n++] = w;
    }
    return ERR_OK;
}

static enum err add_port(struct parser *ps, struct draft *d, struct str rest)
{
    if (d->p.ports_n == ARRAY_LEN(d->ports)) return bad(ps, "too many ports");
    struct plan_port *p = &d->ports[d->p.ports_n];
    if (parse_port(str_cut(&rest, ' '), &p->port) != ERR_OK) return bad(ps, "not a port");
    p->setting = rest.p != NULL ? arena_dupz(ps->arena, str_trim(rest)) : "";
    if (p->setting == NULL) return ERR_NOMEM;
    d->p.ports_n++;
    return ERR_OK;
}

static enum err set_path(struct parser *ps, struct str rest, const char **ret)
{
    struct str w;
    enum err e = next_word(ps->arena, &rest, &w);
    if (e == ERR_NOMEM) return e;
    if (e != ERR_OK || w.n == 0 || rest.n > 0) return bad(ps, "one path is needed");
    const char *z = arena_dupz(ps->arena, w);
    return z != NULL ? (*ret = z, ERR_OK) : ERR_NOMEM;
}

static enum err parse_line(struct parser *ps, struct str s)
{
    struct str word = str_cut(&s, ' '), rest = str_trim(s.p != NULL ? s : STR(""));
    if (str_eqz(word, "process")) return begin_process(ps, rest);
    if (ps->n == 0) return bad(ps, "the first line must be: process NAME");
    struct draft *d = ps->drafts[ps->n - 1];
    if (str_eqz(word, "command")) return set_command(ps, d, rest);
    if (str_eqz(word, "env")) return add_env(ps, d, rest);
    if (str_eqz(word, "after")) return add_after(ps, d, rest);
    if (str_eqz(word, "port")) return add_port(ps, d, rest);
    if (str_eqz(word, "env-file")) return set_path(ps, rest, &d->p.env_file);
    if (str_eqz(word, "directory")) return set_path(ps, rest, &d->p.directory);
    if (str_eqz(word, "ready")) {
        enum err e = plan_parse_url(rest, ps->arena, &d->p.ready);
        return e == ERR_INVALID ? bad(ps, "ready needs http://ADDRESS:PORT/PATH") : e;
    }
    uint64_t *ms = str_eqz(word, "ready-timeout")  ? &d->p.ready_timeout_ms
                   : str_eqz(word, "stop-timeout") ? &d->p.stop_timeout_ms
                                                   : NULL;
    if (ms == NULL) return bad(ps, "unknown word");
    return plan_parse_duration(rest, ms) == ERR_OK ? ERR_OK : bad(ps, "a time such as 500ms, 10s");
}

/* --- the whole --- */

static enum err parse_lines(struct parser *ps, struct str text)
{
    while (text.p != NULL && text.n > 0) {
        ps->line++;
        struct str s = str_trim(str_cut(&text, '\n'));
        if (s.n == 0 || s.p[0] == '#') continue;
        enum err e = parse_line(ps, s);
        if (e != ERR_OK) return e;
    }
    return ps->n > 0 ? ERR_OK : bad(ps, "no process");
}

static enum err find_process(struct parser *ps, struct str name, size_t *ret)
{
    for (size_t i = 0; i < ps->n; i++)
        if (str_eqz(name, ps->drafts[i]->p.name)) return *ret = i, ERR_OK;
    return why_set(ps->why, ERR_INVALID, "line %u: no process is called %.*s", ps->line,
                   STR_ARG(name));
}

/* Fills in `after` as indices of drafts, and moves arrays out of the draft. */
static enum err finish_draft(struct parser *ps, struct draft *d)
{
    ps->line = d->line;
    if (d->words_n == 0) return bad(ps, "the process has no command");
    size_t *after = arena_calloc(ps->arena, (d->after_n + 1) * sizeof *after);
    if (after == NULL) return ERR_NOMEM;
    for (size_t i = 0; i < d->after_n; i++) {
        enum err e = find_process(ps, d->after[i], &after[i]);
        if (e != ERR_OK) return e;
    }
    d->p.after = after;
    d->p.after_n = d->after_n;
    d->p.argv = d->words;
    d->p.env = d->env;
    d->p.ports = d->ports;
    return ERR_OK;
}

/* Puts the processes in an order in which each comes after those it waits for, otherwise as
 * written. */
static enum err put_in_order(struct parser *ps, struct plan_process *out)
{
    size_t *place = arena_calloc(ps->arena, ps->n * sizeof *place); /* 1-based; 0: not yet */
    if (place == NULL) return ERR_NOMEM;
    for (size_t done = 0; done < ps->n;) {
        size_t before = done;
        for (size_t i = 0; i < ps->n; i++) {
            const struct plan_process *p = &ps->drafts[i]->p;
            bool free_to_go = place[i] == 0;
            for (size_t k = 0; free_to_go && k < p->after_n; k++)
                free_to_go = place[p->after[k]] != 0;
            if (!free_to_go) continue;
            size_t *after = arena_calloc(ps->arena, (p->after_n + 1) * sizeof *after);
            if (after == NULL) return ERR_NOMEM;
            for (size_t k = 0; k < p->after_n; k++) after[k] = place[p->after[k]] - 1;
            out[done] = *p;
            out[done].after = after;
            place[i] = ++done;
        }
        if (done == before) return bad(ps, "processes wait for each other in a circle");
    }
    return ERR_OK;
}

enum err plan_parse(struct str text, struct plan *ret, struct why *why)
{
    if (text.n > PLAN_MAX_BYTES) return why_set(why, ERR_LIMIT, "the plan is too large");
    struct plan plan = { 0 };
    arena_init(&plan.arena, 16 * PLAN_MAX_BYTES);
    struct parser *ps = xcalloc(1, sizeof *ps);
    ps->arena = &plan.arena;
    ps->why = why;
    enum err e = parse_lines(ps, text);
    for (size_t i = 0; e == ERR_OK && i < ps->n; i++) e = finish_draft(ps, ps->drafts[i]);
    if (e == ERR_OK) {
        plan.n = ps->n;
        plan.processes = arena_calloc(&plan.arena, ps->n * sizeof *plan.processes);
        e = plan.processes != NULL ? put_in_order(ps, plan.processes) : ERR_NOMEM;
    }
    free(ps);
    if (e != ERR_OK) {
        if (e != ERR_INVALID) (void)why_set(why, e, "the plan is too large");
        arena_done(&plan.arena);
        return e;
    }
    *ret = plan;
    return ERR_OK;
}

void plan_done(struct plan *p)
{
    arena_done(&p->arena);
}
