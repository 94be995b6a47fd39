/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the Jinja interpreter: what its files share. Not for other modules.
 *
 *   source --jinja_lex--> tokens --jinja_parse, jinja_expr--> tree --jinja_resolve--> struct jinja
 *   struct jinja + context --jinja_eval, jinja_expr_eval--> bytes into the sink
 *
 * The tree is immutable after jinja_compile(). A rendering (`struct jr`) belongs to one thread.
 */
#ifndef TOKENIZER_JINJA_INT_H
#define TOKENIZER_JINJA_INT_H

#include "tokenizer/jinja/jinja.h"

/* ---- tokens ---- */

enum jtok_type {
    JT_EOF,
    JT_DATA,
    JT_VAR_BEGIN,
    JT_VAR_END,
    JT_BLOCK_BEGIN,
    JT_BLOCK_END,
    JT_NAME,
    JT_STRING, /* text is decoded */
    JT_INT,
    JT_FLOAT,
    JT_OP, /* op says which */
};

enum jop {
    JOP_NONE,
    JOP_ADD,
    JOP_SUB,
    JOP_MUL,
    JOP_DIV,
    JOP_FLOORDIV,
    JOP_MOD,
    JOP_POW,
    JOP_CONCAT, /* ~ */
    JOP_EQ,
    JOP_NE,
    JOP_LT,
    JOP_LE,
    JOP_GT,
    JOP_GE,
    JOP_IN,
    JOP_NOT_IN,
    JOP_ASSIGN,
    JOP_DOT,
    JOP_COLON,
    JOP_COMMA,
    JOP_PIPE,
    JOP_SEMICOLON,
    JOP_LPAREN,
    JOP_RPAREN,
    JOP_LBRACKET,
    JOP_RBRACKET,
    JOP_LBRACE,
    JOP_RBRACE,
};

struct jtok {
    uint8_t type, op;
    uint32_t line;
    struct str text;
    double number;
};

struct jtoks {
    struct jtok *v;
    size_t n;
};

/* Splits src (newlines normalised already) into tokens in a. */
enum err jlex(struct arena *a, struct str src, struct jtoks *ret, struct why *why) MUSTCHECK;

/* ---- tree ---- */

enum jn_kind {
    /* statements */
    JN_TEXT,   /* value: the text */
    JN_OUTPUT, /* a */
    JN_IF,     /* a: condition, body, orelse (which may hold one JN_IF: elif) */
    JN_FOR,
    JN_SET,       /* target, a */
    JN_SET_BLOCK, /* target, body; filters: a (JN_FILTER chain over a JN_BLOCK_VALUE) or NULL */
    JN_MACRO,
    JN_CALL_BLOCK,   /* a: the call; def: the JN_MACRO that is `caller` */
    JN_FILTER_BLOCK, /* a: JN_FILTER chain over a JN_BLOCK_VALUE; body */
    JN_WITH,         /* list: targets and values in turn; body */
    JN_SCOPE,        /* body */
    JN_BREAK,
    JN_CONTINUE,
    /* expressions */
    JN_CONST, /* value */
    JN_NAME,  /* name, ref */
    JN_ATTR,  /* a.name; op: the method of that name, or 0 */
    JN_ITEM,  /* a[b] */
    JN_SLICE, /* a[list[0]:list[1]:list[2]], each may be NULL */
    JN_CALL,  /* a(args) */
    JN_FILTER,
    JN_TEST, /* op = 1: not */
    JN_NEG,
    JN_POS,
    JN_NOT,
    JN_BINARY,  /* a op b */
    JN_COMPARE, /* a, then list of JN_BINARY{op, b} */
    JN_AND,
    JN_OR,
    JN_COND,   /* a if b else c (NULL: undefined) */
    JN_CONCAT, /* list joined as strings */
    JN_LIST,
    JN_TUPLE,
    JN_DICT,        /* list: key, value in turn */
    JN_BLOCK_VALUE, /* the text that a set or filter block captured */
};

struct jn;
struct jnlist {
    struct jn **v;
    uint32_t n;
};

struct jkwarg {
    struct str name;
    struct jn *value;
};
struct jncall { /* the arguments of a call, filter or test */
    struct jnlist pos;
    struct jkwarg *kw;
    uint32_t nkw;
};

/* Where a name may be found: in these places, innermost first, then among the globals. */
struct jplace {
    uint16_t up, slot; /* frames outwards; place in that frame */
};
struct jref {
    struct jplace *places;
    uint32_t nplaces;
    uint32_t global; /* index into jinja.globals; UINT32_MAX: the places always hold it */
};

struct jr;
struct jargs;
typedef struct jv jfilter_fn(struct jr *r, struct jv v, const struct jargs *args);
typedef bool jtest_fn(struct jr *r, struct jv v, const struct jargs *args);

struct jn_for {
    struct jn *target, *iter, *test;
    struct jnlist body, orelse;
    bool recursive;
    struct jplace loop; /* of the name `loop` */
    bool uses_loop;
    uint16_t first, count; /* slots of the body's own scope: unset at each turn */
    uint16_t all;          /* with those of scopes within: saved by a recursive call */
    uint16_t else_first, else_count;
};

struct jn_macro {
    struct str name;
    struct str *params;
    struct jn **defaults; /* NULL where there is none */
    uint32_t nparams;
    struct jnlist body;
    struct jplace self; /* where the macro goes */
    uint16_t *param_slots;
    uint16_t caller_slot, varargs_slot, kwargs_slot, nslots;
    bool takes_caller, takes_varargs, takes_kwargs;
};

struct jn {
    uint8_t kind, op;
    uint16_t height; /* of the tree beneath: bounds recursion */
    uint32_t line;
    struct jn *a, *b, *c;
    struct jnlist list; /* also: body */
    union {
        struct jv value;
        struct {
            struct str name;
            struct jref ref;
        };
        struct {
            struct jncall args;
            jfilter_fn *filter;
            jtest_fn *test;
            struct str called; /* for messages */
        };
        struct jn_for *loop;
        struct jn_macro *macro;
        struct {
            struct jnlist orelse;
        };
        struct {
            struct jn *target;
            uint16_t first, count; /* slots of a scope */
        } scope;
    };
};

struct jinja {
    struct arena arena;
    struct jnlist body;
    struct str *globals; /* names looked up in the context, then among built-in functions */
    uint32_t nglobals;
    uint16_t nslots; /* of the root frame */
    bool loops_over_content;
};

/* ---- compiling ---- */

struct jparser {
    struct arena *a;
    const struct jtok *t;
    struct why *why;
    unsigned depth;
    enum err err; /* why a NULL came back */
};

struct jn *jparse_fail(struct jparser *p, enum err e, const char *fmt, ...) PRINTF_LIKE(3, 4);
struct jn *jnode(struct jparser *p, enum jn_kind kind);
/* Notes that child stands beneath n; false when the tree gets too deep to walk. */
bool jparse_under(struct jparser *p, struct jn *n, const struct jn *child);
bool jnlist_add(struct jparser *p, struct jnlist *l, struct jn *n);
bool jtok_is_op(const struct jtok *t, enum jop op);
bool jtok_is_name(const struct jtok *t, const char *name);
/* Whether it was there. */
bool jparse_skip_op(struct jparser *p, enum jop op);
bool jparse_skip_name(struct jparser *p, const char *name);
bool jparse_expect_op(struct jparser *p, enum jop op, const char *what);

struct jn *jparse_expression(struct jparser *p);
/* With or without the inline if; commas make a tuple. */
struct jn *jparse_tuple(struct jparser *p, bool with_cond);
struct jn *jparse_target(struct jparser *p, bool with_tuple);
struct jn *jparse_operand(struct jparser *p);
struct jn *jparse_filters(struct jparser *p, struct jn *over, bool start_inline);
struct jn *jparse_postfix(struct jparser *p, struct jn *n);
struct jn *jparse_unary(struct jparser *p);
/* Parses tokens into t->body. */
enum err jparse(struct arena *a, const struct jtoks *toks, struct jnlist *ret,
                struct why *why) MUSTCHECK;
/* Gives every name its places. */
enum err jresolve(struct jinja *t, struct why *why) MUSTCHECK;

jfilter_fn *jfilter_find(struct str name);
jtest_fn *jtest_find(struct str name);

/* ---- rendering ---- */

enum { JV_UNSET = 0xff };

struct jframe {
    struct jframe *outer;
    struct jv slots[];
};

struct jmacro_value {
    const struct jn_macro *def;
    struct jframe *closure;
};

struct jmethod_value {
    struct jv self;
};

struct jloop {
    const struct jn_for *def;
    struct jframe *frame; /* its variables are there, whoever calls it */
    const struct jv *items;
    uint32_t index, n, depth;
    struct jv changed;
    bool has_changed;
};

/* Bytes that a macro or block produces wait here; with sink they leave when the stage is full. */
struct jout {
    char *data;
    size_t len, cap;
    bool capture;
};

struct jkw {
    struct str name;
    struct jv value;
};
struct jargs {
    const struct jv *pos;
    uint32_t npos, nkw;
    const struct jkw *kw;
};

struct jr {
    const struct jinja *t;
    struct arena *a;
    struct jinja_run *run;
    struct jv *globals;
    struct jframe *frame;
    struct jout *out;
    struct jv block_value;
    uint64_t steps_left, output_left, steps_given;
    unsigned depth;
    enum err err; /* not ERR_OK: everything returns */
    uint32_t line;
    struct why *why;
};

/* Sets the error (the first one stays) and returns an undefined value. */
struct jv jfail(struct jr *r, enum err e, const char *fmt, ...) PRINTF_LIKE(3, 4);
struct jv jnomem(struct jr *r);
/* Pays for work on n bytes or items; false when the steps are out. */
bool jpay(struct jr *r, uint64_t n);

enum jflow { JFLOW_NEXT, JFLOW_BREAK, JFLOW_CONTINUE, JFLOW_STOP };
enum jflow jexec(struct jr *r, const struct jnlist *body);
struct jv jeval(struct jr *r, const struct jn *n);
struct jv jeval_binary(struct jr *r, enum jop op, struct jv a, struct jv b);
void jassign(struct jr *r, const struct jn *target, struct jv v);
bool jemit(struct jr *r, struct str s);
bool jemit_value(struct jr *r, struct jv v);
/* Runs body with its output captured. */
struct jv jcapture(struct jr *r, const struct jnlist *body);
struct jv jrun_loop(struct jr *r, const struct jn_for *f, struct jv over, unsigned depth);

struct jv jcall(struct jr *r, struct jv callee, const struct jargs *args);
struct jv jcall_method(struct jr *r, struct jv self, unsigned method, const struct jargs *args);
/* The number of the method of that name; 0: there is none. */
unsigned jmethod_named(struct str name);
/* Has v such a method? No value has method 0. */
bool jmethod_has(struct jv v, unsigned method);
/* The method of that name which a value of v's type has; 0: none. */
unsigned jmethod_find(struct jv v, struct str name);
/* The built-in function of that name, or undefined. */
struct jv jbuiltin(struct str name);
struct jv jstrftime(struct jr *r, struct str format);

/* v.name and v[key] as Jinja2's getattr and getitem. */
struct jv jgetattr(struct jr *r, struct jv v, struct str name);
/* v.name where jmethod_named(name) is known already. */
struct jv jattr(struct jr *r, struct jv v, struct str name, unsigned method);
struct jv jgetitem(struct jr *r, struct jv v, struct jv key);

/* The argument at place i, or named name; NULL when not given. */
const struct jv *jarg(const struct jargs *args, uint32_t i, const char *name);
/* Its value as an integer or a flag; dflt when not given. */
int64_t jarg_int(struct jr *r, const struct jargs *args, uint32_t i, const char *name,
                 int64_t dflt);
bool jarg_bool(const struct jargs *args, uint32_t i, const char *name, bool dflt);
/* Its string; sets the error when it is something else. */
struct str jarg_str(struct jr *r, const struct jargs *args, uint32_t i, const char *name,
                    struct str dflt);

/* ---- recording (jinja_record.c) ---- */

/* The evaluator comes here only while r->run->record is there, or with a value that has a mark,
 * which exists only then. */
struct jv jrec_spoil(struct jr *r);
/* May v be, or hold, a marked string? */
bool jrec_holds(struct jv v);
bool jrec_truth(struct jr *r, struct jv v);
bool jrec_emit(struct jr *r, struct jv v);
enum err jrec_literal(struct jr *r, struct str s);
/* True: *ret is what comes of it. False: it may be done as ever. */
bool jrec_method(struct jr *r, struct jv self, struct str name, const struct jargs *args,
                 struct jv *ret);
bool jrec_filter(struct jr *r, struct str name, struct jv v, const struct jargs *args,
                 struct jv *ret);
bool jrec_compare(struct jr *r, enum jop op, struct jv a, struct jv b, bool *ret);
/* False: the recording is spoilt. */
bool jrec_may_call(struct jr *r, struct jv callee, const struct jargs *args);
bool jrec_may_test(struct jr *r, struct str name, struct jv v, const struct jargs *args);
/* What is answered for a text; of a plan, too. */
bool jplan_answer(const struct jplan_guard *g, struct str v, struct str with);
/* Writes out what is staged. */
bool jflush(struct jr *r);

/* ---- values ---- */

bool jtruth(struct jv v);
/* Which way to go by v. */
static inline bool jdecide(struct jr *r, struct jv v)
{
    return v.mark == 0 ? jtruth(v) : jrec_truth(r, v);
}
/* a == b; costs steps by what is in them, and sets the error when there are none left. */
bool jequal(struct jr *r, struct jv a, struct jv b);
/* The same of keys that are no strings; false, too, of ones that hold more than a few thousand
 * values. */
bool jv_same_key(struct jv a, struct jv b);
bool jis_number(struct jv v);
/* a and b in order: -1, 0, 1; sets the error when they cannot be compared. */
int jcompare(struct jr *r, struct jv a, struct jv b);
struct jv jbinary(struct jr *r, enum jop op, struct jv a, struct jv b);
bool jcontains(struct jr *r, struct jv needle, struct jv hay);
/* What `for` would walk over, as a list; an error when v cannot be iterated. */
struct jv_list *jiterate(struct jr *r, struct jv v);
const char *jtype_name(struct jv v);
struct jv jslice(struct jr *r, struct jv v, struct jv lo, struct jv hi, struct jv step);

/* str(v): borrows when v is a string. */
struct str jto_str(struct jr *r, struct jv v);
struct jv jconcat(struct jr *r, struct str a, struct str b);

struct jjson {
    bool ascii, sort_keys;
    int indent; /* -1: on one line */
    struct str item_sep, key_sep;
};
struct jv jto_json(struct jr *r, struct jv v, const struct jjson *how);

/* ---- strings (UTF-8; a byte that is not UTF-8 counts as one character) ---- */

size_t jstr_chars(struct str s);
/* The byte offset of character i; s.n when there are fewer. */
size_t jstr_offset(struct str s, size_t i);
/* Length in bytes of the character at p. */
size_t jstr_step(const char *p, size_t n);
bool jstr_is_space(uint32_t cp);
/* Python's strip: spaces, or any of chars. which: 1 left, 2 right, 3 both. */
struct str jstr_strip(struct str s, const struct str *chars, int which);
uint32_t jchar_upper(uint32_t cp);
uint32_t jchar_lower(uint32_t cp);
/* JCASE_TITLE is the method's (behind anything but a letter), JCASE_WORDS the filter's (behind
 * white space and - ( { [ <). */
enum jcase { JCASE_UPPER, JCASE_LOWER, JCASE_TITLE, JCASE_CAPITALIZE, JCASE_SWAP, JCASE_WORDS };
struct jv jstr_case(struct jr *r, struct str s, enum jcase how);
bool jchar_is_alpha(uint32_t cp);
/* The offset of needle at or behind from, or SIZE_MAX. */
size_t jstr_find(struct str s, struct str needle, size_t from);
struct jv jstr_replace(struct jr *r, struct str s, struct str old, struct str with, int64_t max);

/* ---- numbers in strings, as Python's int(s, base) and float(s) read them ---- */

/* base: 2 to 36, or 0 for what its prefix (0x, 0o, 0b) says. False when s is no such number; true
 * with a failure of r for one that does not fit. */
bool jnumber_int(struct jr *r, struct str s, int base, struct jv *ret);
/* False when s is no number; of r's error when memory is out. */
bool jnumber_float(struct jr *r, struct str s, double *ret);
/* int(f) of one that is finite. */
struct jv jnumber_truncated(struct jr *r, double f);

/* A growing string in the arena. */
struct jsb {
    char *p;
    size_t n, cap;
};
bool jsb_add(struct jr *r, struct jsb *b, struct str s);
static inline struct str jsb_str(const struct jsb *b)
{
    return str_n(b->p != NULL ? b->p : "", b->n);
}

#endif
