#!/usr/bin/env python3
"""Writes tests/goldens/templates/cases.jsonl: small templates of every part of the language with what jinja2, as
transformers configures it, makes of them. Needs transformers and jinja2.

usage: make_template_cases.py > tests/goldens/templates/cases.jsonl
"""

import datetime
import json

from transformers.utils import chat_template_utils

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)  # as tests/eval/engine/jinja/template_test.cc has it

VARIABLES = {
    "s": "Hello World", "space": "  a b\t\n", "u": "ümläut 你好 ß", "e": "", "n": 3, "z": 0, "m": -7, "f": 2.5,
    "b": True, "no": None, "xs": [3, 1, 2], "ys": ["b", "A", "c"], "d": {"k": 1, "a": "x", "z": [1, 2]},
    "people": [{"name": "Bob", "age": 3, "t": {"v": 1}}, {"name": "alice", "age": 5}, {"name": "bob", "age": 4}],
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
}

TEMPLATES = r"""
{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7 / 2 }} {{ 1e16 }} {{ 0.1 + 0.2 }}
{{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 1.5e3 }} {{ -n|abs }} {{ 2 ** 3 ** 2 }} {{ 10 - 2 - 3 }}
{{ n + f }} {{ b + 1 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ 1 < n < 5 }} {{ 1 < n > 5 }} {{ [1, 2] < [1, 3] }}
{{ s ~ n ~ no ~ b ~ undefined_name }}|{{ 'a' 'b' }}|{{ 'ab' * 2 }}|{{ [1] * 2 + [f] }}|{{ (1, 'x') + (2,) }}
{{ 'ell' in s }} {{ 4 not in xs }} {{ 'k' in d }} {{ not b or z }} {{ e or 'other' }} {{ b and n }} {{ 'x' if z }}|{{ 'x' if n else 'y' }}
{{ xs[0] }} {{ xs[-1] }} {{ xs[5] }}|{{ xs[1:] }} {{ xs[::-1] }} {{ s[2:5] }} {{ u[-4:] }} {{ s[::-2] }} {{ (1, 2, 3)[:2] }} {{ d.k }} {{ d['a'] }} {{ d.z.1 }}
{{ [1, 2.0, none, true, 'it\'s', "q\"", 'a\n\t\\é', {'k': (1,)}] }} {{ {1: 2, 'a': []} }} {{ () }} {{ 1e-5 }} {{ 100.0 }}
{{ d.items() }} {{ d.keys() }} {{ d.values()|list }} {{ range(3) }} {{ range(1, 10, 3)|list }} {{ namespace(a=1) }}
{{ d.get('k') }} {{ d.get('q') }} {{ d.get('q', 5) }} {{ d.k.real }} {{ s.upper() }} {{ s.nosuch }}|{{ d.items is defined }}
{{ space.strip() }}|{{ space.lstrip() }}|{{ space.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.rsplit(' ', 1) }} {{ 'a\nb\r\nc'.splitlines() }}
{{ s.startswith('He') }} {{ s.endswith(('x', 'ld')) }} {{ s.find('o') }} {{ s.find('o', 5) }} {{ s.rfind('o') }} {{ s.find('q') }} {{ s.count('l') }} {{ s.replace('l', 'L', 2) }} {{ '-'.join(ys) }} {{ s.partition(' ') }} {{ s.removeprefix('He').removesuffix('ld') }}
{{ u.upper() }} {{ u.title() }} {{ 'ǆ ΑΣ'.lower() }} {{ 'hELLO wORLD'.capitalize() }} {{ s.swapcase() }} {{ '5'.isdigit() }} {{ '½'.isnumeric() }} {{ u|length }} {{ 'ab'.center(7, '*') }} {{ '-5'.zfill(4) }} {{ 'a'.ljust(3, '.') }}
{{ '%s is %d of %5.2f%%' % (s, n, f) }} {{ '%r %x %05d %-4d|%+d' % ('a', 255, 42, 7, 3) }} {{ '%(k)s' % d }} {{ '{} {1}'.format(1) if false }}{{ '{0}{1}{0}'.format(1, 2) }} {{ '{a:>6}|{b:.3f}|{c:,}'.format(a='x', b=f, c=1234567) }} {{ '{0.name} {0[age]} {1!r}'.format(people[0], 'q') }}
{{ s|upper }} {{ s|lower }} {{ 'the (quick) b-r'|title }} {{ s|replace('l', '1') }} {{ xs|join(', ') }} {{ people|join('/', attribute='name') }} {{ xs|sort }} {{ ys|sort }} {{ ys|sort(case_sensitive=true) }} {{ people|sort(attribute='age', reverse=true)|map(attribute='name')|list }}
{{ xs|first }} {{ xs|last }} {{ xs|length }} {{ xs|sum }} {{ xs|max }} {{ xs|min }} {{ [1, 1, 2]|unique|list }} {{ xs|reverse|list }} {{ s|reverse }} {{ []|first }}|{{ xs|batch(2, '-')|list }} {{ xs|slice(2)|list }}
{{ people|selectattr('t')|map(attribute='name')|list }} {{ people|selectattr('age', 'gt', 3)|list|length }} {{ people|rejectattr('t', 'defined')|map(attribute='name')|join(',') }} {{ xs|select('odd')|list }} {{ xs|reject('in', [1])|list }} {{ ys|map('upper')|join }} {{ people|map(attribute='t.v', default='-')|list }} {{ people|groupby('name') }}
{{ undefined_name|default('D') }} {{ e|default('D') }} {{ e|d('D', true) }} {{ '42.7'|int }} {{ 'x'|int(5) }} {{ '0x1f'|int(base=16) }} {{ '2.5'|float }} {{ 2.567|round(1) }} {{ 2.5|round }} {{ 42|round }} {{ 2.1|round(method='ceil') }} {{ d|dictsort }} {{ d|dictsort(reverse=true)|first }} {{ d|items|list }}
{{ d|tojson }} {{ d|tojson(indent=2) }} {{ u|tojson }} {{ u|tojson(ensure_ascii=true) }} {{ d|tojson(separators=(',', ':')) }} {{ d|tojson(sort_keys=true) }} {{ [1.0, none, true, 'a"\n<']|tojson }}
{{ '<a & b>'|e }} {{ '<x>'|safe }} {{ '<'|e + '<' }} {{ '<b>x</b>  y &amp; z'|striptags }} {{ {'a': 1, 'b': none}|xmlattr }} {{ 'a b/ü'|urlencode }} {{ {'a': 'x y'}|urlencode }} {{ 'a b c'|wordcount }} {{ 'ab'|center(6) }}| {{ 'a\nb\n\nc'|indent(2) }} {{ s|truncate(8) }} {{ s|truncate(8, true, '~', 0) }} {{ 1000000|filesizeformat }} {{ '%s-%s'|format(1, 2) }}
{{ n is odd }} {{ n is even }} {{ n is divisibleby 3 }} {{ no is none }} {{ d is mapping }} {{ xs is sequence }} {{ 5 is iterable }} {{ s is string }} {{ b is boolean }} {{ b is integer }} {{ b is number }} {{ f is float }} {{ undefined_name is defined }} {{ range is callable }} {{ n is in xs }} {{ n is not none }} {{ n is eq 3 }} {{ 'a' is lower }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ no is sameas none }}
{% for x in xs %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }};{% else %}none{% endfor %}{% for x in [] %}{% else %}none{% endfor %}
{% for k, v in d.items() if v is not string %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}{% for x in xs if x > 1 %}{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{{ loop.depth }}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}
{% for x in range(6) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% set x = 1 %}{% for i in xs %}{% set x = x + i %}{{ x }},{% endfor %}{{ x }}{% set ns = namespace(t=0) %}{% for i in xs %}{% set ns.t = ns.t + i %}{% endfor %}{{ ns.t }}
{% if z %}a{% elif n == 3 %}b{% else %}c{% endif %}{% if n %}{% set q = 5 %}{% endif %}{{ q }}{% set a, b2 = xs[:2] %}{{ a }}{{ b2 }}{% set t %} {{ s }} {% endset %}[{{ t }}]{% set t2 | upper | trim %} x{% endset %}[{{ t2 }}]
{% macro m(a, b='B', c=a) %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1) }}|{{ m(1, c=2) }}|{{ m(1, 2, 3, 4, x=5) }}|{{ m.name }}{{ m.arguments }}
{% macro w(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) w(3) %}[{{ y }}{{ s }}]{% endcall %}{% macro g() %}{{ late }}{% endmacro %}{% set late = 'L' %}{{ g() }}
{% filter upper|replace('L', '1') %}a{{ s }}{% endfilter %}{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ b }}{% raw %}{{ x }}{% endraw %}{% generation %}g{{ n }}{% endgeneration %}{% print n, s %}
{% block one %}in {{ n }}{% endblock %}|{{ self.one() }}|{{ cycler('a', 'b').next() }}{% set j = joiner('; ') %}{{ j() }}a{{ j() }}b{{ dict(a=1, b=2) }}{{ strftime_now('%d %b %Y %H:%M') }}
  {% if true %}  
 x  {%- if true -%}  y  {%- endif %}
{# a comment #}
z{% endif +%}
 {%+ if true %} k {{- n -}} l {% endif %}
{{ messages[0].role ~ ': ' ~ messages[0]['content'] }}{% set ns = namespace(found=false) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.found }}{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|first }}
{{ raise_exception('no ' ~ s) }}
{{ undefined_name.x }}
{{ d.nosuch.y }}
{{ s.nosuch.y }}
{{ xs[9] + 1 }}
{{ no.x.y }}
{{ s + 1 }}
{{ s + no }}
{{ 1 + s }}
{{ xs + s }}
{{ no + 1 }}
{{ 1 / 0 }}
{{ 1 < s }}
{% for x in no %}{% endfor %}
{% for a, b in xs %}{% endfor %}
{{ no|length }}
{{ 'a' in no }}
{{ 1 in s }}
{{ no() }}
{{ s.nosuch() }}
{{ xs.append(1) }}
{{ d.update({}) }}
{{ s.__class__.mro }}
{{ namespace(_x=1) }}
{% set d.k = 2 %}
{{ undefined_name|tojson }}
{{ {[1]: 2} }}
{{ s.startswith(1) }}
{{ ','.join([1]) }}
{{ 'a'.split('') }}
{{ s|replace('a') }}
{{ s|truncate(2) }}
{{ '%d' % s }}
{{ '%s %s' % 1 }}
{{ 'a{' .format() }}
{{ [1, 'a']|sort }}
{{ range(200000) }}
{{ x|nosuch }}
{% if false %}{{ x|nosuch }}{% endif %}fine
{{ x is nosuch }}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{% endmacro %}{{ m(b=2) }}
{% include 'x' %}
{% if %}
{% for x %}
{% nosuch %}
{% endif %}
{% if true %}
{% for x in xs %}{% endif %}
{{ 'a }}
{{ a b }}
{{ (1 }}
{{ 1) }}
{{ $ }}
{% set 1 = 2 %}
{# open
{% raw %}
{{ f(a=1, 2) }}
{% block a %}{% endblock %}{% block a %}{% endblock %}
"""


def templates():
    """One a line; the block that begins with two spaces is one of several lines."""
    lines = TEMPLATES.strip("\n").split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("  {% if true %}"))
    last = next(i for i, line in enumerate(lines) if line.startswith(" {%+ if true %}"))
    yield from lines[:first]
    yield "\n".join(lines[first:last + 1]) + "\n"
    yield from lines[last + 1:]


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def main():
    chat_template_utils.datetime = FixedTime
    print(json.dumps({"variables": VARIABLES}, ensure_ascii=False))
    for template in templates():
        case = {"template": template}
        try:
            # pylint: disable=protected-access
            case["text"] = chat_template_utils._compile_jinja_template(template).render(**VARIABLES)
        except Exception as error:  # pylint: disable=broad-except
            case["error"] = str(error)
        print(json.dumps(case, ensure_ascii=False))


main()
