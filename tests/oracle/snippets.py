# SPDX-License-Identifier: Apache-2.0
"""Small templates that go through every feature of Jinja that chat templates use, and what they are rendered with."""

SNIPPET_CONTEXT = {
    "s": "Hello, World", "e": "", "sp": "  padded\t\n", "u": "héllo 世界 👍", "i": 7, "neg": -7,
    "f": 2.5, "one": 1.0, "big": 123456789012345678901, "none": None, "yes": True, "no": False,
    "l": [3, 1, 2], "ls": ["b", "A", "c"], "empty": [], "d": {"b": 1, "a": [1, {"x": None}], "c": 2.0},
    "nested": {"function": {"name": "f", "args": {"k": "v"}}},
    "people": [{"name": "ann", "age": 30, "tags": ["x"]}, {"name": "bob", "age": 25},
               {"name": "Cid", "age": 30, "tags": []}],
    "tree": [{"v": 1, "kids": [{"v": 2, "kids": [{"v": 3, "kids": []}]}, {"v": 4, "kids": []}]}],
    "quotes": "it's \"so\"\\\n\u0001\u00ad", "html": "<a href='x'>&</a>",
}

SNIPPETS = r"""
plain text
{{ s }}{{ i }}{{ f }}{{ one }}{{ big }}{{ none }}{{ yes }}{{ no }}
{{ l }}{{ d }}{{ ls }}{{ quotes }}{{ [quotes] }}{{ (1,) }}{{ (1, 'a') }}{{ {} }}{{ [] }}{{ () }}
{{ undefined_thing }}|{{ d.nope }}|{{ l[10] }}
{{ undefined_thing.x }}
{{ d.nope.x }}
{{ undefined_thing + 'a' }}
{{ 'a' + 1 }}
{{ 'a' ~ 1 ~ none ~ 2.0 ~ yes }}
{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1 / 3 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-4 }} {{ 1e-5 }} {{ 123456789.123 }} {{ 1.5e300 }} {{ 0.1 + 0.2 }}
{{ 1 / 0 }}
{{ -i }} {{ +i }} {{ - i | abs }} {{ -f }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ 1 == true }} {{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1} }} {{ [1] < [2] }}
{{ 1 < 'a' }}
{{ 'a' in 'abc' }} {{ 'z' not in 'abc' }} {{ 3 in l }} {{ 'b' in d }} {{ 'nope' in d }} {{ 1 in (1, 2) }} {{ 'x' in undefined_thing }}
{{ 1 in 'abc' }}
{{ not yes }} {{ not no and yes }} {{ yes and s }} {{ no or e or 'last' }} {{ not 1 == 2 }}
{{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }}| {{ 'a' if no else 'b' if no else 'c' }}
{{ s[0] }}{{ s[-1] }}{{ s[0:5] }}{{ s[::-1] }}{{ s[-5:] }}{{ s[:-1] }}{{ s[::2] }}{{ s[5:0:-1] }}{{ s[100:] }}
{{ u[1] }}{{ u[::-1] }}{{ u | length }}{{ u[6:8] }}{{ u | upper }}{{ u | title }}
{{ l[0] }}{{ l[-1] }}{{ l[1:] }}{{ l[::-1] }}{{ l[:-1] }}{{ l[-2:] }}{{ l[::2] }}{{ l[5:] }}{{ l.0 }}
{{ s[1:2:0] }}
{{ d['a'][1].x }}{{ d.a[1]['x'] }}{{ nested.function.args.k }}{{ nested['function']['name'] }}
{{ d.items() | list }}{{ d.keys() | list }}{{ d.values() | list }}{{ d.get('b') }}{{ d.get('zz') }}{{ d.get('zz', 5) }}
{{ s.startswith('Hell') }}{{ s.endswith('ld') }}{{ s.startswith(('x', 'H')) }}{{ s.upper() }}{{ s.lower() }}{{ s.title() }}{{ s.swapcase() }}{{ 'aBC dEF'.capitalize() }}
{{ sp.strip() }}|{{ sp.lstrip() }}|{{ sp.rstrip() }}|{{ 'xxhixx'.strip('x') }}|{{ 'abcba'.strip('ab') }}|{{ 'xhix'.lstrip('x') }}|{{ 'xhix'.rstrip('ix') }}|{{ 'a'.strip('') }}
{{ 'a,b,,c'.split(',') }}{{ ' a  b c '.split() }}{{ 'a b c'.split(' ', 1) }}{{ 'a b c'.split(None, 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ''.split(',') }}{{ ''.split() }}{{ 'a</think>b</think>c'.split('</think>')[-1] }}
{{ 'abc'.split('') }}
{{ 'a\nb\r\nc\n'.splitlines() }}{{ 'k=v=w'.partition('=') }}{{ 'k=v=w'.rpartition('=') }}{{ 'kv'.partition('=') }}{{ 'kv'.rpartition('=') }}
{{ 'hello'.replace('l', 'L') }}{{ 'hello'.replace('l', 'L', 1) }}{{ 'hello' | replace('l', '') }}{{ 'ab'.replace('', '-') }}{{ 'aaa' | replace('a', 'b', 2) }}
{{ 'hello'.find('l') }}{{ 'hello'.rfind('l') }}{{ 'hello'.find('z') }}{{ 'hello'.count('l') }}{{ 'hello'.index('e') }}{{ [1, 2, 1].count(1) }}{{ [1, 2].index(2) }}
{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ ' '.isspace() }}{{ 'AB'.isupper() }}{{ 'ab'.islower() }}{{ ''.isdigit() }}{{ 'a1'.isalnum() }}
{{ ', '.join(ls) }}{{ 'x'.join([]) }}{{ '{} and {}'.format(1, 'b') }}{{ '{a}{{}}'.format(a=2) }}{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('bc') }}
{{ 'x'.nope() }}
{{ 'x'.nope }}|
{{ s.append(1) }}
{{ l.append(1) }}
{{ '%s-%d-%%' % ('a', 3) }}{{ '%s' % 'b' }}{{ '%s and %s' | format('a', 'b') }}
{{ 'ab' * 3 }}{{ [1] * 2 }}{{ [1] + [2] }}{{ (1,) + (2,) }}
{{ 'a' 'b' "c" }}{{ "\n\t\\\"\'\x41\u00e9\101" }}{{ '\d\q' }}
{{ d | tojson }}{{ d | tojson(indent=2) }}{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=4) }}{{ quotes | tojson }}{{ u | tojson }}{{ u | tojson(ensure_ascii=True) }}{{ [1, 1.0, big, none, yes, 'x'] | tojson }}
{{ people | tojson(indent=4) }}{{ d | tojson(sort_keys=True) }}{{ d | tojson(separators=(',', ':')) }}{{ (1, 2) | tojson }}{{ {1: 2, none: 3, true: 4} | tojson }}{{ [1e16, 1e-7, 100.0, 0.1] | tojson }}
{{ undefined_thing | tojson }}
{{ sp | trim }}|{{ 'xax' | trim('x') }}|{{ 5 | trim }}|{{ none | trim }}|{{ undefined_thing | trim }}
{{ s | length }}{{ l | length }}{{ d | length }}{{ l | count }}{{ undefined_thing | length }}
{{ 5 | length }}
{{ none | length }}
{{ l | join }}{{ l | join(', ') }}{{ people | join('/', attribute='name') }}{{ 'abc' | join('-') }}{{ d | join }}{{ undefined_thing | join(',') }}
{{ d | items | list }}{{ undefined_thing | items | list }}{{ 'abc' | list }}{{ d | list }}{{ (1, 2) | list }}
{{ 5 | string + 'a' }}{{ none | string }}{{ l | string }}{{ 1.0 | string }}
{{ undefined_thing | default('x') }}{{ e | default('x') }}{{ e | default('x', true) }}{{ none | default('x') }}{{ undefined_thing | d }}{{ d.nope | default(5) }}{{ e | default('y', boolean=True) }}
{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | list }}{{ people | rejectattr('tags') | map(attribute='name') | list }}{{ people | selectattr('tags', 'defined') | list | length }}{{ people | selectattr('tags', 'undefined') | map(attribute='name') | join }}
{{ people | selectattr('age', 'gt', 26) | map(attribute='name') | list }}{{ people | selectattr('name', 'in', ['ann', 'bob']) | list | length }}{{ l | select('odd') | list }}{{ l | reject('equalto', 1) | list }}{{ [0, 1, '', 'a'] | select | list }}{{ [0, 1] | reject | list }}
{{ ls | map('upper') | list }}{{ ls | map('replace', 'b', 'x') | join }}{{ people | map(attribute='tags', default='none') | list }}{{ people | map(attribute='tags.0') | list | length }}{{ l | map('string') | join('+') }}
{{ d | dictsort }}{{ {'B': 1, 'a': 2} | dictsort }}{{ {'B': 1, 'a': 2} | dictsort(true) }}{{ {'x': 2, 'y': 1} | dictsort(false, 'value') }}{{ {'x': 2, 'y': 1} | dictsort(reverse=true) }}
{{ l | sort }}{{ ls | sort }}{{ ls | sort(case_sensitive=true) }}{{ l | sort(reverse=true) }}{{ people | sort(attribute='age') | map(attribute='name') | list }}{{ l | first }}{{ l | last }}{{ [] | first }}|{{ 'abc' | last }}
{{ l | reverse | list }}{{ 'abc' | reverse }}{{ [1, 2, 1, 3] | unique | list }}{{ ['a', 'A'] | unique | list }}{{ l | sum }}{{ people | sum(attribute='age') }}{{ l | min }}{{ l | max }}{{ ls | min }}{{ [] | sum }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }}{{ [1, 2, 3] | batch(2, 0) | list }}{% for k, v in people | groupby('age') %}{{ k }}:{{ v | map(attribute='name') | join(',') }};{% endfor %}
{{ '42' | int }}{{ 'x' | int }}{{ 'x' | int(7) }}{{ 3.9 | int }}{{ ' 5 ' | int }}{{ '2.7' | int }}{{ '1.5' | float }}{{ 2 | float }}{{ 'x' | float }}{{ -5 | abs }}{{ 2.5 | round }}{{ 3.14159 | round(2) }}{{ 2.1 | round(0, 'ceil') }}{{ 7 | round }}
{{ 'a\nb\n\nc' | indent }}{{ 'a\nb' | indent(2, true) }}{{ 'a\n\nb' | indent(2, blank=true) }}{{ 'a\nb' | indent('> ') }}
{{ html | escape }}{{ html | e }}{{ s | safe }}{{ 'one two  three' | wordcount }}{{ 'aBc dEf' | title }}{{ 'aBC' | capitalize }}{{ 'ab-cd ef' | title }}{{ "it's" | title }}
{% if people | selectattr('age', 'equalto', 99) %}a generator is true{% endif %}
{{ people | selectattr('age', 'equalto', 30) | length }}
{% set g = l | map('string') %}{{ g | list }}{{ g | list }}
{{ yes is true }}{{ 1 is true }}{{ no is false }}{{ none is none }}{{ 1 is none }}{{ s is string }}{{ l is string }}{{ d is mapping }}{{ l is mapping }}{{ l is iterable }}{{ 5 is iterable }}{{ s is iterable }}{{ l is sequence }}{{ d is sequence }}{{ 5 is sequence }}{{ yes is boolean }}{{ 1 is boolean }}
{{ i is number }}{{ yes is number }}{{ f is float }}{{ i is integer }}{{ yes is integer }}{{ big is integer }}{{ i is odd }}{{ i is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ i is eq 7 }}{{ i is equalto(7) }}{{ i is gt 3 }}{{ i is lt(3) }}{{ 'a' is in 'abc' }}{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ none is sameas none }}{{ i is ne 7 }}{{ i is ge 7 }}{{ i is le 7 }}
{{ undefined_thing is defined }}{{ undefined_thing is undefined }}{{ d.nope is defined }}{{ d.b is defined }}{{ undefined_thing is none }}{{ undefined_thing is string }}{{ undefined_thing is iterable }}{{ undefined_thing is sequence }}{{ undefined_thing is mapping }}{{ undefined_thing is not defined }}{{ not d.b is defined }}{{ range is callable }}{{ raise_exception is defined }}{{ 'upper' is filter }}{{ 'odd' is test }}
{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x) }};{% endfor %}
{% for x in [] %}x{% else %}nothing{% endfor %}{% for x in undefined_thing %}x{% else %}none{% endfor %}{% for x in 'abc' %}{{ x }}{% endfor %}{% for k in d %}{{ k }}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in none %}{% endfor %}
{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [[1, 2], (3, 4)] %}{{ a }}{{ b }}{% endfor %}{% for k, v in d | dictsort %}{{ k }}{% endfor %}{% for (a, b) in [[1, 2]] %}{{ a }}{% endfor %}
{% for a, b in [[1]] %}{% endfor %}
{% for x in l if x > 1 %}{{ x }}{{ loop.index }}/{{ loop.length }}{{ loop.last }};{% else %}none{% endfor %}{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}
{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% if x == 2 %}{% break %}{% endif %}{% endfor %}
{% for x in l %}{% for y in ls %}{{ loop.index }}{{ x }}{{ y }}{% set x = 9 %}{% endfor %}{{ x }}{{ loop.index }};{% endfor %}
{% for n in tree recursive %}{{ n.v }}({{ loop.depth }}{{ loop.index }}){% if n.kids %}[{{ loop(n.kids) }}]{% endif %}{{ n.v }}{% endfor %}
{% set x = 1 %}{% for y in l %}{{ x }}{% set x = y %}{{ x }}{% endfor %}{{ x }}
{% set ns = namespace(a=1, b=[]) %}{% for y in l %}{% set ns.a = ns.a + y %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{% set ns.c = 'new' %}{{ ns.c }}
{% set d.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = [b, a] %}{{ a }}{{ b }}{% set t = 1, 2 %}{{ t }}
{% set block %}body {{ i }}{% endset %}[{{ block }}]{% set up | upper %}body{% endset %}{{ up }}{{ up is string }}
{% if no %}{% set z = 1 %}{% endif %}{{ z is defined }}{{ z }}{% if yes %}{% set z = 2 %}{% endif %}{{ z }}
{% if i %}{% set s = 'shadow' %}{% endif %}{{ s }}
{% if no %}{% set s = 'shadow' %}{% endif %}{{ s }}
{% if i > 10 %}a{% elif i > 5 %}b{% elif i > 1 %}c{% else %}d{% endif %}{% if not l %}x{% else %}y{% endif %}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=5, a=4) }}{{ m(1, 2, 3, 4, 5) }}{{ m(1, z=9) }}{{ m() }}
{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n }}*{{ fact(n - 1) }}{% endif %}{% endmacro %}{{ fact(5) }}{{ fact(3) | length }}
{% macro m(x) %}{{ later }}{{ x }}{{ s }}{% set x = 'in' %}{{ x }}{% endmacro %}{% set later = 'L' %}{{ m('a') }}{{ later }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, 2) }}
{% macro show(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) show(5) %}got {{ y }} {{ s }}{% endcall %}{% macro wrap() %}({{ caller() }}){% endmacro %}{% call wrap() %}in{% endcall %}
{% macro outer() %}{% macro inner(x) %}{{ x }}!{% endmacro %}{{ inner('a') }}{% endmacro %}{{ outer() }}
{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}
{{ m is defined }}{% macro m() %}{% endmacro %}{{ m is defined }}
{{ undefined_thing() }}
{{ s() }}
{% filter upper %}hello {{ s }}{% endfilter %}{% filter replace('a', 'b') | trim %} banana {% endfilter %}
{% with a = 1, b = 2 %}{{ a }}{{ b }}{% set c = 3 %}{{ c }}{% endwith %}{{ a is defined }}{{ c is defined }}{% with %}{% set q = 1 %}{{ q }}{% endwith %}
{% generation %}answer {{ s }}{% set g = 1 %}{% endgeneration %}{{ g is defined }}
{% raw %}{{ not }} {% a tag %}{% endraw %}|{%- raw -%} x {%- endraw -%} |
{# a comment #}a{#- b -#} c {# multi
line #}d
  {% if yes %}
    kept indent
  {% endif %}
after
a {% if yes %} b {% endif %} c
a {%- if yes -%} b {%- endif -%} c
  {%+ if yes %}plus{% endif +%}
x
{%- set q = 1 %}

{{- ' left' }}  {{ 'right ' -}}   end
   {# comment alone #}
x{{ 1 }}
   {{ 2 }}
   {% set a = 1 %}   {{ a }}
{% if yes %}{% if yes %}

two newlines
{% endif %}{% endif %}
{{ range(3) | list }}{{ range(1, 4) | list }}{{ range(10, 0, -3) | list }}{{ range(3) }}{{ range(3) | length }}{% for x in range(2) %}{{ x }}{% endfor %}{{ range(0) | list }}{{ range(5)[2] }}{{ 3 in range(5) }}
{{ dict(a=1, b='x') }}{{ namespace(a=1).a }}{{ {'a': 1, 'b': {'c': [1, 2]}} }}{{ {'a': 1}['a'] }}{{ {'a': 1}.a }}{{ [1, [2, 3]][1][0] }}
{{ raise_exception('stop: ' + s) }}
{{ strftime_now('%d %b %Y') }}{{ strftime_now('%Y-%m-%dT%H:%M:%S') }}
{{ 1_000 }}{{ 0x1f }}{{ 0b101 }}{{ 0o17 }}{{ 1.5e3 }}{{ 2E-3 }}
{{ 'a' | upper ~ 'b' }}{{ 'a' + 'b' | upper + 'c' }}{{ ('a' + 'b') | upper }}{{ 1 + 2 | string | length }}
{{ people[0].name }}{{ people[-1]['age'] }}{{ people[0]['nope'] is defined }}{{ people | length - 1 }}{{ (people | length) - 1 }}
{{ l[people | length - 1] }}{{ l[i - 7] }}{{ d['a' if yes else 'b'] }}
{{ true and none }}{{ True }}{{ None }}{{ False }}{{ not none }}
{{ quotes }}{{ [quotes, "it's", 'say "x"', '\\', '\x7f\x80\u200b\u2028\ufeff', 'é'] }}
{{ {'a': undefined_thing} }}{{ [undefined_thing] }}{{ [none, true, 1.0] }}{{ {1: 'a', 2.5: 'b', none: 'c', true: 'd'} }}
{{ (1 if yes) }}{{ 1 is defined and 2 is defined }}{{ 1 if s is defined else 2 }}{{ s is not none and s }}
{{ loop is defined }}{% for x in [1] %}{{ loop is defined }}{% endfor %}
{% for x in l %}{{ 'a' if loop.first else ('z' if loop.last else 'm') }}{{ ', ' if not loop.last }}{% endfor %}
{% for m in people %}{{ people[loop.index0 - 1].name }}{{ people[loop.index0 + 1].name }}{% endfor %}
{% for m in people %}{% if not loop.last %}{{ people[loop.index0 + 1].name }}{% endif %}{% endfor %}
{% for m in people[::-1] %}{% set index = (people | length - 1) - loop.index0 %}{{ index }}{{ m.name }}{% endfor %}
{{ s | nope }}
{{ s is nope }}
{% nope %}
{% if %}
{{ }}
{{ 'unclosed }}
{% for x in l %}
{{ (1 }}
{% endif %}
{% include 'x' %}
"""


def snippets():
    """One template per line; a line ending in a backslash-free blank pair joins nothing: templates
    that need several lines are built here."""
    single = [s for s in SNIPPETS.strip("\n").split("\n")]
    several = [
        "  {% if yes %}\n    x\n  {% endif %}\n  y\n", "a\n\n{% set x = 1 %}\n\nb{{ x }}\n\n",
        "{% for x in l %}\n- {{ x }}\n{% endfor %}\nend", "{%- for x in l -%}\n  {{ x }}\n{%- endfor %}\n",
        "x\r\ny\rz\r\n", "{# c #}\n{# d #}\n  {# e #}  \nz", "\t{%- if yes %}\ta{% endif -%}\t\nb",
        "a\n  {%+ if yes %}b{% endif %}\n", "{% if yes +%}\na{% endif %}\n\n", "{{ s }}\n{{ s }}\n\n",
        "  {% raw %}\n  {{ x }}\n  {% endraw %}\n  y", "{{\n s\n|\nupper\n}}", "{% set x = [\n 1,\n 2,\n] %}{{ x }}",
        "{{ {\n'a': {'b': 1}} }}", "a  {{- s -}}  b", "{% macro m() -%}\n  hi\n{%- endmacro %}\n{{ m() }}\n",
        "{%- if yes -%}\n\n  a\n\n{%- else -%}\n b\n{%- endif -%}\n", "\n\n{{ s }}", "   {{ s }}   \n",
        "{% if yes %}a{% endif %}\n{% if no %}b{% endif %}\nc\n", "\u00a0{%- if yes %}a{% endif -%}\u3000b",
        "{% set x %}\n a\n{% endset %}\n[{{ x }}]", "{#- a -#}\n\nb", "b\n\n{#- a #}\n\nc",
    ]
    return single + several
