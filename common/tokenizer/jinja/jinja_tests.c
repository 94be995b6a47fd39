/* SPDX-License-Identifier: Apache-2.0 */
/* Tests: what stands behind `is`. */
#include <math.h>

#include "tokenizer/jinja/jinja_int.h"

#define TEST(name) static bool name(struct jr *r, struct jv v, const struct jargs *args)
#define UNUSED (void)r, (void)args

static struct jv operand(struct jr *r, const struct jargs *args)
{
    if (args->npos > 0) return args->pos[0];
    return jfail(r, ERR_INVALID, "a test that needs an operand has none");
}

TEST(t_defined)
{
    return UNUSED, v.type != JV_UNDEFINED;
}
TEST(t_undefined)
{
    return UNUSED, v.type == JV_UNDEFINED;
}
TEST(t_none)
{
    return UNUSED, v.type == JV_NONE;
}
TEST(t_string)
{
    return UNUSED, v.type == JV_STR;
}
TEST(t_mapping)
{
    return UNUSED, v.type == JV_DICT;
}
TEST(t_boolean)
{
    return UNUSED, v.type == JV_BOOL;
}
TEST(t_true)
{
    return UNUSED, v.type == JV_BOOL && v.b;
}
TEST(t_false)
{
    return UNUSED, v.type == JV_BOOL && !v.b;
}
TEST(t_integer)
{
    return UNUSED, v.type == JV_INT || v.type == JV_BIGINT;
}
TEST(t_float)
{
    return UNUSED, v.type == JV_FLOAT;
}
TEST(t_number)
{
    return UNUSED, jis_number(v);
}
TEST(t_escaped)
{
    return UNUSED, (void)v, false;
}

TEST(t_iterable)
{
    UNUSED;
    return v.type == JV_STR || v.type == JV_DICT || v.type == JV_UNDEFINED || jv_is_listy(v) ||
           v.type == JV_LOOP;
}

TEST(t_sequence)
{
    UNUSED;
    return v.type == JV_STR || v.type == JV_DICT || v.type == JV_UNDEFINED ||
           (jv_is_listy(v) && v.type != JV_GENERATOR);
}

TEST(t_callable)
{
    UNUSED;
    return v.type == JV_MACRO || v.type == JV_FUNCTION || v.type == JV_METHOD ||
           v.type == JV_LOOP || v.type == JV_UNDEFINED;
}

static int64_t whole(struct jr *r, struct jv v)
{
    if (v.type == JV_INT) return v.i;
    if (v.type == JV_BOOL) return v.b;
    jfail(r, ERR_INVALID, "a test for integers on a %s", jtype_name(v));
    return 0;
}

TEST(t_odd)
{
    return UNUSED, whole(r, v) % 2 != 0;
}
TEST(t_even)
{
    return UNUSED, whole(r, v) % 2 == 0;
}

TEST(t_divisibleby)
{
    int64_t by = whole(r, operand(r, args)), n = whole(r, v);
    if (by == 0) jfail(r, ERR_INVALID, "division by zero");
    return r->err == ERR_OK && (by == -1 || n % by == 0);
}

TEST(t_eq)
{
    return jequal(r, v, operand(r, args));
}
TEST(t_ne)
{
    return !jequal(r, v, operand(r, args));
}
TEST(t_lt)
{
    return jcompare(r, v, operand(r, args)) < 0;
}
TEST(t_le)
{
    return jcompare(r, v, operand(r, args)) <= 0;
}
TEST(t_gt)
{
    return jcompare(r, v, operand(r, args)) > 0;
}
TEST(t_ge)
{
    return jcompare(r, v, operand(r, args)) >= 0;
}
TEST(t_in)
{
    return jcontains(r, v, operand(r, args));
}

TEST(t_sameas)
{
    struct jv o = operand(r, args);
    return o.type == v.type && jequal(r, v, o);
}

/* str.islower(): there are letters, and none of the other case */
static bool all_of_case(struct jr *r, struct jv v, enum jcase how)
{
    struct str s = jto_str(r, v);
    struct jv same = jstr_case(r, s, how);
    struct jv other = jstr_case(r, s, how == JCASE_LOWER ? JCASE_UPPER : JCASE_LOWER);
    if (r->err != ERR_OK) return false;
    return str_eq(jv_text(same), s) && !str_eq(jv_text(other), s);
}

TEST(t_lower)
{
    return UNUSED, all_of_case(r, v, JCASE_LOWER);
}
TEST(t_upper)
{
    return UNUSED, all_of_case(r, v, JCASE_UPPER);
}

TEST(t_filter)
{
    return UNUSED, v.type == JV_STR && jfilter_find(jv_text(v)) != NULL;
}
TEST(t_test)
{
    return UNUSED, v.type == JV_STR && jtest_find(jv_text(v)) != NULL;
}

jtest_fn *jtest_find(struct str name)
{
    static const struct {
        const char *name;
        jtest_fn *fn;
    } table[] = {
        { "defined", t_defined },
        { "undefined", t_undefined },
        { "none", t_none },
        { "string", t_string },
        { "mapping", t_mapping },
        { "iterable", t_iterable },
        { "sequence", t_sequence },
        { "boolean", t_boolean },
        { "true", t_true },
        { "false", t_false },
        { "integer", t_integer },
        { "float", t_float },
        { "number", t_number },
        { "callable", t_callable },
        { "odd", t_odd },
        { "even", t_even },
        { "divisibleby", t_divisibleby },
        { "eq", t_eq },
        { "equalto", t_eq },
        { "==", t_eq },
        { "ne", t_ne },
        { "!=", t_ne },
        { "lt", t_lt },
        { "lessthan", t_lt },
        { "<", t_lt },
        { "le", t_le },
        { "<=", t_le },
        { "gt", t_gt },
        { "greaterthan", t_gt },
        { ">", t_gt },
        { "ge", t_ge },
        { ">=", t_ge },
        { "in", t_in },
        { "sameas", t_sameas },
        { "lower", t_lower },
        { "upper", t_upper },
        { "escaped", t_escaped },
        { "filter", t_filter },
        { "test", t_test },
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++)
        if (str_eqz(name, table[i].name)) return table[i].fn;
    return NULL;
}
