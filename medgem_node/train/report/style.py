"""How the report looks: light, dark and on paper."""

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1a1a19; --soft: #5f5e5a; --rule: #dcdbd6; --band: #f5f4f0;
  --warn: #8a4b00; --s0: #2a6fc4; --s1: #c2541c; --s2: #168a61; --s3: #7a4fc0; }
@media (prefers-color-scheme: dark) { :root { --page: #191918; --ink: #ecebe6; --soft: #a9a8a2; --rule: #3c3b38;
  --band: #242422; --warn: #f0b060; --s0: #6aa5ee; --s1: #ee8a58; --s2: #4cc397; --s3: #b394ee; } }
@media print { :root { color-scheme: light; --page: #fff; --ink: #000; --soft: #444; --rule: #bbb; --band: #f2f2f2;
  --warn: #000; --s0: #1d57a0; --s1: #a04010; --s2: #0d6b4a; --s3: #5a35a0; }
  main { max-width: none; } section { break-before: auto; } table, figure { break-inside: avoid; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1rem; }
.warning { color: var(--warn); font-weight: 600; }
.note { color: var(--soft); max-width: 50rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.87rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
th, td { text-align: left; padding: 0.25rem 0.8rem 0.25rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; }
tbody tr:nth-child(even) { background: var(--band); }
code { overflow-wrap: anywhere; }
.charts { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 1rem 0; flex: 1 1 20rem; max-width: 30rem; }
figcaption { font-weight: 600; font-size: 0.9rem; }
figure svg { width: 100%; height: auto; }
figure img { width: 100%; height: auto; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
polyline { fill: none; stroke-width: 2; } line.bar { stroke-width: 1.5; opacity: 0.6; }
.grid { stroke: var(--rule); stroke-width: 1; } .guide { stroke: var(--soft); stroke-width: 1; }
polyline.s0, line.s0 { stroke: var(--s0); } polyline.s1, line.s1 { stroke: var(--s1); }
polyline.s2, line.s2 { stroke: var(--s2); } polyline.s3, line.s3 { stroke: var(--s3); }
circle { stroke: var(--page); stroke-width: 1; }
circle.s0 { fill: var(--s0); } circle.s1 { fill: var(--s1); }
circle.s2 { fill: var(--s2); } circle.s3 { fill: var(--s3); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.3rem 1rem; padding: 0; margin: 0.2rem 0;
  font-size: 0.85rem; }
figure svg.key { width: 26px; height: 10px; margin-right: 0.4rem; }
"""
"""One sheet for the report and its gallery."""
