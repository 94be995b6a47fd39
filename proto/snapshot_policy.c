/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shape of policies: what each kind takes, its bounds and defaults. A member that means nothing
 * for a kind is a problem of the admin API, which says where it belongs. The decoder's thread; the
 * rest is pure.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>

#include "base/zone.h"
#include "proto/snapshot_decode.h"

enum { NETWORK_MAX_BYTES = 49, PATTERN_MAX_BYTES = 1024, HEADER_MAX_BYTES = 64 };
/* Cost is counted in nano-units; all units stay exact as doubles. */
static const uint64_t limit_max = 1000000000000, cost_max = 9000000000000000, window_min_ms = 100,
                      window_max_ms = 366ull * 86400000;

static const char *const kind_words[] = {
    [SNAP_REQUEST_RATE] = "request_rate",
    [SNAP_CONCURRENCY] = "concurrency",
    [SNAP_TOKEN_RATE] = "token_rate",
    [SNAP_QUOTA] = "quota",
    [SNAP_INPUT_TOKENS] = "input_tokens",
    [SNAP_OUTPUT_TOKENS] = "output_tokens",
    [SNAP_ACCESS] = "access",
    [SNAP_BODY_SIZE] = "body_size",
};
static const char *const period_words[] = {
    [SNAP_PERIOD_HOUR] = "hour",
    [SNAP_PERIOD_DAY] = "day",
    [SNAP_PERIOD_WEEK] = "week",
    [SNAP_PERIOD_MONTH] = "month",
};

const char *snap_policy_kind_name(enum snap_policy_kind k)
{
    return k < ARRAY_LEN(kind_words) ? kind_words[k] : "unknown";
}

const char *snap_period_name(enum snap_period p)
{
    return p < ARRAY_LEN(period_words) ? period_words[p] : "unknown";
}

bool snap_policy_is_leased(const struct snap_policy *p)
{
    return p->kind == SNAP_REQUEST_RATE || p->kind == SNAP_CONCURRENCY ||
           p->kind == SNAP_TOKEN_RATE || p->kind == SNAP_QUOTA;
}

/* --- patterns and networks --- */

static bool same(char a, char b, bool fold)
{
    return fold ? tolower((unsigned char)a) == tolower((unsigned char)b) : a == b;
}

bool snap_glob(struct str pattern, struct str s, bool fold)
{
    size_t p = 0, i = 0, star = SIZE_MAX, from = 0;
    while (i < s.n) {
        if (p < pattern.n && pattern.p[p] == '*') {
            star = p++;
            from = i;
        } else if (p < pattern.n && same(pattern.p[p], s.p[i], fold)) {
            p++;
            i++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            i = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.n && pattern.p[p] == '*') p++;
    return p == pattern.n;
}

static bool bits_are_zero(const unsigned char address[16], unsigned from)
{
    for (unsigned i = from; i < 128; i++)
        if ((address[i / 8] & (0x80u >> (i % 8))) != 0) return false;
    return true;
}

const char *snap_network_parse(struct str s, struct snap_network *ret)
{
    static const unsigned char mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };
    struct snap_network n = { .bits = 128 };
    char text[NETWORK_MAX_BYTES + 1];
    struct str rest = s, address = str_cut(&rest, '/');
    bool has_bits = address.n < s.n;
    uint64_t bits = 0;
    if (s.n > NETWORK_MAX_BYTES || memchr(s.p, '\0', s.n) != NULL)
        return "must be an address or a network such as 10.0.0.0/8 or 2001:db8::/32";
    (void)str_copyz(text, sizeof text, address);
    unsigned most = 128, before = 0;
    if (inet_pton(AF_INET, text, n.address + 12) == 1) {
        memcpy(n.address, mapped, sizeof mapped);
        most = 32;
        before = 96;
    } else if (inet_pton(AF_INET6, text, n.address) != 1) {
        return "must be an address or a network such as 10.0.0.0/8 or 2001:db8::/32";
    }
    if (has_bits) {
        if (rest.n == 0 || rest.n > 3 || str_to_u64(rest, &bits) != ERR_OK || bits > most)
            return most == 32 ? "must have 0 to 32 behind the / of an IPv4 network"
                              : "must have 0 to 128 behind the / of an IPv6 network";
        n.bits = before + (unsigned)bits;
    }
    if (!bits_are_zero(n.address, n.bits))
        return "has bits set behind its prefix length: clear them, or write a longer one";
    *ret = n;
    return NULL;
}

bool snap_network_has(const struct snap_network *n, const unsigned char address[16])
{
    size_t whole = n->bits / 8;
    unsigned rest = n->bits % 8;
    if (memcmp(n->address, address, whole) != 0) return false;
    if (rest == 0) return true;
    return ((n->address[whole] ^ address[whole]) >> (8 - rest)) == 0;
}

/* --- what a counter is kept per --- */

static void decode_source(struct snap_decoder *d, struct str s, struct snap_policy *out)
{
    static const char *const words[] = {
        [SNAP_PER_NAMESPACE] = "namespace", [SNAP_PER_KEY] = "key", [SNAP_PER_MODEL] = "model",
        [SNAP_PER_UPSTREAM] = "upstream",   [SNAP_PER_IP] = "ip",   [SNAP_PER_USER] = "user",
    };
    struct str header = STR("");
    int found = -1;
    for (size_t w = 0; w < ARRAY_LEN(words); w++)
        if (str_eqz(s, words[w])) found = (int)w;
    if (str_starts(s, STR("header:"))) {
        found = SNAP_PER_HEADER;
        header = dec_copy_lower(d, str_n(s.p + 7, s.n - 7));
        if (!dec_is_token(header) || header.n > HEADER_MAX_BYTES) {
            dec_problem(d,
                        "must be header: and a header's name of 1 to %d characters, such as "
                        "header:x-team",
                        HEADER_MAX_BYTES);
            return;
        }
    }
    if (found < 0) {
        dec_problem(d, "must be one of: namespace, key, model, upstream, ip, user, header:NAME");
        return;
    }
    for (size_t k = 0; k < out->per_n; k++)
        if (out->per[k] == (enum snap_per)found && str_eq(out->per_header[k], header)) {
            dec_problem(d, "is named twice");
            return;
        }
    out->per_header[out->per_n] = header;
    out->per[out->per_n++] = (enum snap_per)found;
}

static void decode_per(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    bool by_ip = false;
    struct snap_strings per = dec_strings(d, o, "per", SNAP_PER_MAX, 7 + HEADER_MAX_BYTES, NULL,
                                          "");
    size_t mark = dec_enter(d, STR("per"));
    for (size_t i = 0; i < per.n; i++) {
        size_t inner = dec_enter_index(d, i);
        if (per.v[i].p != NULL) decode_source(d, per.v[i], out);
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    for (size_t i = 0; i < out->per_n; i++) by_ip = by_ip || out->per[i] == SNAP_PER_IP;
    if (out->per_n == 0) {
        out->per_header[0] = STR("");
        out->per[out->per_n++] = SNAP_PER_NAMESPACE;
    }
    out->ipv6_prefix = (unsigned)dec_u64(d, o, "ipv6_prefix", 0, 64, 16, 128);
    if (!by_ip) dec_absent(d, o, "ipv6_prefix", "is for \"per\" with \"ip\" only");
}

/* --- rates and quotas --- */

static void decode_rate(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    static const char *const algorithms[] = {
        [SNAP_BUCKET] = "bucket", [SNAP_SLIDING] = "sliding", [SNAP_FIXED] = "fixed"
    };
    struct str window = dec_text(d, o, "window", DEC_REQUIRED, 1, 16);
    out->window_ms = 1000;
    if (window.p != NULL && (snapshot_parse_window(window, &out->window_ms) != ERR_OK ||
                             out->window_ms < window_min_ms || out->window_ms > window_max_ms)) {
        dec_problem_at(d, "window", "must be a duration from 100ms to 366d, such as 1s or 10m");
        out->window_ms = 1000;
    }
    /* sliding windows from 10 s on, buckets below */
    out->algorithm = (enum snap_algorithm)dec_word(
        d, o, "algorithm", algorithms, ARRAY_LEN(algorithms),
        out->window_ms >= 10000 ? SNAP_SLIDING : SNAP_BUCKET);
    out->burst = dec_u64(d, o, "burst", 0, out->limit, 1, limit_max);
    if (out->algorithm != SNAP_BUCKET)
        dec_absent(d, o, "burst", "is a bucket's only: set algorithm to bucket, or leave it out");
}

static void decode_count(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    static const char *const counts[] = {
        [SNAP_COUNT_TOTAL] = "total", [SNAP_COUNT_INPUT] = "input", [SNAP_COUNT_OUTPUT] = "output"
    };
    out->count = (enum snap_count)dec_word(d, o, "count", counts, ARRAY_LEN(counts),
                                           SNAP_COUNT_TOTAL);
}

static void decode_quota(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    static const char *const units[] = {
        [SNAP_UNIT_TOKENS] = "tokens", [SNAP_UNIT_REQUESTS] = "requests", [SNAP_UNIT_COST] = "cost"
    };
    static const uint64_t longest_h[] = { [SNAP_PERIOD_HOUR] = 1,
                                          [SNAP_PERIOD_DAY] = 25,
                                          [SNAP_PERIOD_WEEK] = 7 * 24 + 1,
                                          [SNAP_PERIOD_MONTH] = 31 * 24 + 1 };
    out->unit = (enum snap_unit)dec_word(d, o, "unit", units, ARRAY_LEN(units), SNAP_UNIT_TOKENS);
    out->period = (enum snap_period)dec_word(d, o, "period", period_words, ARRAY_LEN(period_words),
                                             -1);
    out->algorithm = SNAP_FIXED;
    out->window_ms = longest_h[out->period] * 3600000;
    struct str zone = dec_text(d, o, "timezone", 0, 1, ZONE_NAME_MAX);
    if (zone.p != NULL) out->timezone = zone;
    if (!zone_name_is_valid(out->timezone) || (d->strict && zone.p != NULL && !zone_exists(zone)))
        dec_problem_at(d, "timezone",
                       "must be a name of the IANA time zone database, such as Europe/Berlin");
    struct str currency = dec_text(d, o, "currency", out->unit == SNAP_UNIT_COST ? DEC_REQUIRED : 0,
                                   3, 3);
    if (out->unit == SNAP_UNIT_COST) {
        for (size_t i = 0; currency.p != NULL && i < currency.n; i++) {
            if (currency.p[i] >= 'A' && currency.p[i] <= 'Z') continue;
            dec_problem_at(d, "currency", "must be three capital letters (ISO 4217)");
            break;
        }
        if (currency.p != NULL) out->currency = currency;
    } else {
        dec_absent(d, o, "currency", "is of quotas with \"unit\": \"cost\" only");
    }
    if (out->unit == SNAP_UNIT_TOKENS)
        decode_count(d, o, out);
    else
        dec_absent(d, o, "count", "is of tokens only: leave it out, or set unit to tokens");
}

/* --- access --- */

static bool is_path_pattern(struct str s)
{
    if (s.p[0] != '/' && s.p[0] != '*') return false;
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] <= 0x20 || s.p[i] == '?' || s.p[i] == '#' || s.p[i] == '\\')
            return false;
    return true;
}

static void decode_networks(struct snap_decoder *d, const struct json *o, struct snap_rule *out)
{
    struct snap_strings list = dec_strings(d, o, "networks", SNAP_NETWORKS_MAX, NETWORK_MAX_BYTES,
                                           NULL, "");
    struct snap_network *v = list.n > 0 ? dec_alloc(d, list.n, sizeof *v) : NULL;
    if (v == NULL) return;
    size_t mark = dec_enter(d, STR("networks"));
    for (size_t i = 0; i < list.n; i++) {
        const char *problem = list.v[i].p != NULL ? snap_network_parse(list.v[i], &v[i]) : NULL;
        size_t inner = dec_enter_index(d, i);
        if (problem != NULL) dec_problem(d, "%s", problem);
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    out->networks = v;
    out->networks_n = list.n;
}

static void decode_rule(struct snap_decoder *d, const struct json *o, struct snap_rule *out)
{
    static const char *const effects[] = { "deny", "allow" };
    static const char *const keys[] = { "effect", "models", "paths", "methods", "networks", NULL };
    if (!json_is(o, JSON_OBJECT)) {
        dec_problem(d, "must be an object with \"effect\" and what it matches");
        return;
    }
    out->allow = dec_word(d, o, "effect", effects, ARRAY_LEN(effects), -1) == 1;
    out->models = dec_models(d, o, "models");
    out->paths = dec_strings(d, o, "paths", 128, PATTERN_MAX_BYTES, is_path_pattern,
                             "must begin with / or * and hold no space, ?, # or backslash");
    out->methods = dec_strings(d, o, "methods", 16, 32, dec_is_token, "must be an HTTP method");
    decode_networks(d, o, out);
    dec_known(d, o, keys);
}

static void decode_access(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    static const char *const effects[] = { "deny", "allow" };
    const struct json *list = dec_member(o, "rules");
    size_t n = json_len(list), i = 0;
    bool any_allows = false;
    if (!json_is(list, JSON_ARRAY) || n == 0 || n > SNAP_RULES_MAX) {
        dec_problem_at(d, "rules", "must be a list of 1 to %d rules", SNAP_RULES_MAX);
        return;
    }
    struct snap_rule *rules = dec_alloc(d, n, sizeof *rules);
    if (rules == NULL) return;
    size_t mark = dec_enter(d, STR("rules"));
    for (const struct json *it = json_first(list); it != NULL; it = json_next(it), i++) {
        size_t inner = dec_enter_index(d, i);
        decode_rule(d, it, &rules[i]);
        any_allows = any_allows || rules[i].allow;
        dec_leave(d, inner);
    }
    dec_leave(d, mark);
    out->rules = rules;
    out->rules_n = n;
    /* a list of what is allowed denies the rest; a list of what is denied allows it */
    out->otherwise_allow = dec_word(d, o, "otherwise", effects, 2, any_allows ? 0 : 1) == 1;
}

/* --- the whole --- */

/* Members that only some kinds take; a problem says which. */
static void refuse_others(struct snap_decoder *d, const struct json *o,
                          const struct snap_policy *out)
{
    enum snap_policy_kind k = out->kind;
    bool rate = k == SNAP_REQUEST_RATE || k == SNAP_TOKEN_RATE, leased = snap_policy_is_leased(out);
    const struct {
        const char *key, *why;
        bool takes;
    } rules[] = {
        { "limit", "access has rules instead of a limit", k != SNAP_ACCESS },
        { "window", "is of request_rate and token_rate only; a quota has a period", rate },
        { "algorithm", "is of request_rate and token_rate only", rate },
        { "burst", "is of request_rate and token_rate only", rate },
        { "per", "each request is bounded by itself: leave it out", leased },
        { "ipv6_prefix", "each request is bounded by itself: leave it out", leased },
        { "count", "is of token_rate and of quotas of tokens only",
          k == SNAP_TOKEN_RATE || k == SNAP_QUOTA },
        { "unit", "is of quota only", k == SNAP_QUOTA },
        { "period", "is of quota only; a rate has a window", k == SNAP_QUOTA },
        { "timezone", "is of quota only", k == SNAP_QUOTA },
        { "currency", "is of quota only", k == SNAP_QUOTA },
        { "rules", "is of access only", k == SNAP_ACCESS },
        { "otherwise", "is of access only", k == SNAP_ACCESS },
    };
    for (size_t i = 0; i < ARRAY_LEN(rules); i++)
        if (!rules[i].takes) dec_absent(d, o, rules[i].key, rules[i].why);
    if (!d->strict) return;
    if (out->strict && k != SNAP_CONCURRENCY)
        dec_problem_at(d, "strict", "is of concurrency only: leave it out");
    if (out->on_unavailable != SNAP_SHARE && !leased)
        dec_problem_at(d, "on_unavailable", "%s needs no policy engine: leave it out",
                       kind_words[k]);
    if (out->models.n > 0 && k == SNAP_BODY_SIZE)
        dec_problem_at(d, "models", "a body is bounded before its model is known: leave it out");
    if (out->models.n > 0 && k == SNAP_ACCESS)
        dec_problem_at(d, "models", "access names models in its rules");
}

void snap_decode_policy(struct snap_decoder *d, const struct json *o, struct snap_policy *out)
{
    static const char *const modes[] = { "enforce", "shadow" };
    static const char *const unavailable[] = {
        [SNAP_SHARE] = "share", [SNAP_DENY] = "deny", [SNAP_ALLOW] = "allow"
    };
    static const char *const keys[] = { "id",          "namespace", "slug",           "kind",
                                        "enabled",     "mode",      "priority",       "per",
                                        "ipv6_prefix", "limit",     "window",         "algorithm",
                                        "burst",       "count",     "unit",           "period",
                                        "timezone",    "currency",  "on_unavailable", "strict",
                                        "models",      "rules",     "otherwise",      NULL };
    out->id = dec_id(d, o, "id");
    out->slug = dec_slug(d, o);
    out->ns = dec_namespace(d, o, true);
    out->kind = (enum snap_policy_kind)dec_word(d, o, "kind", kind_words, ARRAY_LEN(kind_words),
                                                -1);
    out->enabled = dec_bool(d, o, "enabled", true);
    out->shadow = dec_word(d, o, "mode", modes, ARRAY_LEN(modes), 0) == 1;
    out->priority = dec_i64(d, o, "priority", 0, -DEC_PRIORITY_MAX, DEC_PRIORITY_MAX);
    out->on_unavailable = (enum snap_unavailable)dec_word(d, o, "on_unavailable", unavailable,
                                                          ARRAY_LEN(unavailable), SNAP_SHARE);
    out->strict = dec_bool(d, o, "strict", false);
    out->models = dec_models(d, o, "models");
    out->algorithm = SNAP_BUCKET;
    out->timezone = STR("UTC");
    out->currency = STR("");
    out->unit = out->kind == SNAP_REQUEST_RATE ? SNAP_UNIT_REQUESTS : SNAP_UNIT_TOKENS;
    if (out->kind == SNAP_QUOTA) decode_quota(d, o, out);
    bool cost = out->kind == SNAP_QUOTA && out->unit == SNAP_UNIT_COST;
    if (out->kind != SNAP_ACCESS)
        out->limit = dec_u64(d, o, "limit", DEC_REQUIRED, 1, 1, cost ? cost_max : limit_max);
    if (out->kind == SNAP_REQUEST_RATE || out->kind == SNAP_TOKEN_RATE) decode_rate(d, o, out);
    if (out->kind == SNAP_TOKEN_RATE) decode_count(d, o, out);
    if (snap_policy_is_leased(out)) decode_per(d, o, out);
    if (out->kind == SNAP_ACCESS) decode_access(d, o, out);
    refuse_others(d, o, out);
    dec_known(d, o, keys);
}
