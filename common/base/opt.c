/* SPDX-License-Identifier: Apache-2.0 */
#include "base/opt.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

enum { PROBLEMS_MAX = 64 * 1024, VALUE_MAX = 64 * 1024 };

void opt_problem(struct opt_problems *p, const char *fmt, ...)
{
    va_list ap;
    if (p->text.max == 0) buf_init(&p->text, PROBLEMS_MAX);
    p->count++;
    va_start(ap, fmt);
    if (buf_vprintf(&p->text, fmt, ap) != ERR_OK || buf_append_char(&p->text, '\n') != ERR_OK)
        p->text.len = MIN(p->text.len, p->text.max);
    va_end(ap);
}

/* The content of a small file without its last line end, or NULL after a problem was noted. */
static char *read_file(const char *name, const char *path, struct opt_problems *problems)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        opt_problem(problems, "%s_FILE: cannot read %s: %s", name, path, strerror(errno));
        return NULL;
    }
    char *text = xmalloc(VALUE_MAX + 1);
    size_t len = 0;
    ssize_t n;
    while (len < VALUE_MAX && (n = read(fd, text + len, VALUE_MAX - len)) > 0) len += (size_t)n;
    close(fd);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r')) len--;
    text[len] = '\0';
    return text;
}

/* The text of a setting from NAME or NAME_FILE: owned; NULL when unset. */
static char *lookup(const struct opt *o, struct opt_problems *problems)
{
    char file_name[128];
    const char *value = getenv(o->name);
    (void)snprintf(file_name, sizeof file_name, "%s_FILE", o->name);
    const char *path = getenv(file_name);
    if (value != NULL && *value != '\0') {
        if (path != NULL && *path != '\0')
            opt_problem(problems, "set %s or %s, not both", o->name, file_name);
        return xstrdup(value);
    }
    if (path != NULL && *path != '\0') return read_file(o->name, path, problems);
    return NULL;
}

static void *field(const struct opt *o, void *settings)
{
    return (char *)settings + o->offset;
}

static void read_int(const struct opt *o, const char *text, void *settings,
                     struct opt_problems *problems)
{
    int64_t v;
    if (str_to_i64(str_of(text), &v) != ERR_OK) {
        opt_problem(problems, "%s: \"%s\" is not a whole number", o->name, text);
    } else if ((o->min != 0 || o->max != 0) && (v < o->min || v > o->max)) {
        opt_problem(problems, "%s: %s is outside %lld to %lld%s%s", o->name, text,
                    (long long)o->min, (long long)o->max, o->unit != NULL ? " " : "",
                    o->unit != NULL ? o->unit : "");
    } else {
        *(int64_t *)field(o, settings) = v;
    }
}

static bool is_text(const struct opt *o)
{
    return o->type == OPT_STR || o->type == OPT_SECRET || o->type == OPT_URL ||
           o->type == OPT_ADDRESS;
}

/* By the function that listeners take it apart with, so that none is refused later. */
static bool is_address(const char *text)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *list;
    if (getaddrinfo(text, NULL, &hints, &list) != 0) return false;
    freeaddrinfo(list);
    return true;
}

static void set_value(const struct opt *o, const char *text, void *settings,
                      struct opt_problems *problems)
{
    enum log_level level;
    switch (o->type) {
    case OPT_ADDRESS:
        if (*text != '\0' && !is_address(text))
            opt_problem(problems, "%s: \"%s\" is not an IPv4 or IPv6 address", o->name, text);
        *(char **)field(o, settings) = xstrdup(text);
        break;
    case OPT_STR:
    case OPT_SECRET:
    case OPT_URL: *(char **)field(o, settings) = xstrdup(text); break;
    case OPT_INT:
        if (*text != '\0') read_int(o, text, settings, problems);
        break;
    case OPT_BOOL:
        if (*text != '\0' && str_to_bool(str_of(text), field(o, settings)) != ERR_OK)
            opt_problem(problems, "%s: \"%s\" is not true or false", o->name, text);
        break;
    case OPT_LEVEL:
        if (log_level_parse(str_of(text), &level) != ERR_OK)
            opt_problem(problems, "%s: \"%s\" is not debug, info, warn, error or off", o->name,
                        text);
        else
            *(int64_t *)field(o, settings) = level;
        break;
    }
}

void opt_read(const struct opt *table, size_t n, void *settings, struct opt_problems *problems)
{
    for (size_t i = 0; i < n; i++) {
        char *text = lookup(&table[i], problems);
        set_value(&table[i],
                  text != NULL           ? text
                  : table[i].def != NULL ? table[i].def
                                         : "",
                  settings, problems);
        free(text);
    }
}

void opt_done(const struct opt *table, size_t n, void *settings)
{
    for (size_t i = 0; i < n; i++) {
        if (!is_text(&table[i])) continue;
        char **s = field(&table[i], settings);
        free(*s);
        *s = NULL;
    }
}

/* Between the scheme and the last '@' everything may be a password, so of several URLs with
 * credentials the hosts between these are not told either. */
static enum err print_url(const char *name, const char *url, struct buf *out)
{
    const char *at = strrchr(url, '@'), *scheme = strchr(url, ':');
    if (at == NULL) return buf_printf(out, "%s=%s\n", name, url);
    bool is_url = scheme != NULL && scheme < at && strncmp(scheme, "://", 3) == 0;
    int head = is_url ? (int)(scheme + 3 - url) : 0;
    return buf_printf(out, "%s=%.*s***%s\n", name, head, url, at);
}

enum err opt_print(const struct opt *table, size_t n, const void *settings, struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const void *f = (const char *)settings + table[i].offset;
        const char *z = is_text(&table[i]) ? *(char *const *)f : NULL;
        if (z == NULL) z = "";
        switch (table[i].type) {
        case OPT_STR:
        case OPT_ADDRESS: e = buf_printf(out, "%s=%s\n", table[i].name, z); break;
        case OPT_SECRET: e = buf_printf(out, "%s=%s\n", table[i].name, *z ? "***" : ""); break;
        case OPT_URL: e = print_url(table[i].name, z, out); break;
        case OPT_BOOL:
            e = buf_printf(out, "%s=%s\n", table[i].name, *(const bool *)f ? "true" : "false");
            break;
        case OPT_INT:
        case OPT_LEVEL:
            e = buf_printf(out, "%s=%lld\n", table[i].name, (long long)*(const int64_t *)f);
            break;
        }
    }
    return e;
}

static enum err bounds(const struct opt *o, struct buf *out)
{
    if (o->type != OPT_INT || (o->min == 0 && o->max == 0)) return ERR_OK;
    return buf_printf(out, "%lld to %lld", (long long)o->min, (long long)o->max);
}

enum err opt_help(const struct opt *table, size_t n, struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const struct opt *o = &table[i];
        e = buf_printf(out, "  %s", o->name);
        if (e == ERR_OK && o->def != NULL && *o->def) e = buf_printf(out, " (default %s", o->def);
        if (e == ERR_OK && o->def != NULL && *o->def)
            e = o->unit != NULL ? buf_printf(out, " %s)", o->unit) : buf_append_char(out, ')');
        if (e == ERR_OK && o->type == OPT_INT && (o->min != 0 || o->max != 0)) {
            e = buf_appendz(out, " [");
            if (e == ERR_OK) e = bounds(o, out);
            if (e == ERR_OK) e = buf_append_char(out, ']');
        }
        if (e == ERR_OK) e = buf_printf(out, "\n      %s\n", o->doc);
    }
    return e;
}

enum err opt_markdown(const struct opt *table, size_t n, struct buf *out)
{
    enum err e = ERR_OK;
    for (size_t i = 0; i < n && e == ERR_OK; i++) {
        const struct opt *o = &table[i];
        e = buf_printf(out, "| `%s` | %s%s%s | ", o->name, o->def != NULL ? o->def : "",
                       o->unit != NULL ? " " : "", o->unit != NULL ? o->unit : "");
        if (e == ERR_OK) e = bounds(o, out);
        if (e == ERR_OK) e = buf_printf(out, " | %s |\n", o->doc);
    }
    return e;
}
