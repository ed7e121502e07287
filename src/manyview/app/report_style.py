"""How the report page looks: in light and dark mode, on paper, without anything from outside."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --panel: #f5f6f8; --line: #d5d9de;
  --problem: #b3261e; --problem-back: #fdecea; --doubt: #8a5300; --doubt-back: #fff3dc;
  --note: #2f5a8a; --note-back: #e9f1fa; --good: #1a7f37; --before: #9aa4af; --after: #1f77b4;
  --part-0: #1f77b4; --part-1: #d6541d; --part-2: #2a8f3c; --part-3: #8b5fbf; --part-4: #8a6d3b; --part-5: #b0307c; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #15181c; --ink: #e6e9ec; --faint: #9aa4af; --panel: #1f242a; --line: #363d45;
  --problem: #ff9a92; --problem-back: #44201d; --doubt: #f3c26b; --doubt-back: #3d2f13;
  --note: #9cc4f0; --note-back: #1c2f44; --good: #6fd088; --before: #6b7682; --after: #5aa9e6;
  --part-0: #5aa9e6; --part-1: #f08a55; --part-2: #63c174; --part-3: #b795e0; --part-4: #c8a876; --part-5: #e07ab8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .7rem; font-size: 1.2rem; }
p { margin: .3rem 0; }
.faint { color: var(--faint); font-size: .9rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.1rem 0; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .55rem .9rem; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.2; }
.tile span { color: var(--faint); font-size: .85rem; }
ul.findings { list-style: none; margin: 0; padding: 0; }
ul.findings li { margin: .35rem 0; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 0 .45em; border-radius: .35em; border: 1px solid; font-size: .82rem;
  font-weight: 600; white-space: nowrap; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.problem { color: var(--problem); background: var(--problem-back); }
.doubt { color: var(--doubt); background: var(--doubt-back); }
.note { color: var(--note); background: var(--note-back); }
.good { color: var(--good); }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(15.5rem, 1fr)); gap: .9rem; }
.photo { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem;
  break-inside: avoid; font-size: .9rem; }
.photo.has-problem { border-color: var(--problem); } .photo.has-doubt { border-color: var(--doubt); }
.photo img { display: block; max-width: 100%; height: 150px; object-fit: contain; margin: 0 auto .5rem; }
.photo h3 { margin: 0; font-size: .95rem; overflow-wrap: anywhere; }
.number { color: var(--faint); font-weight: 400; }
.photo ul.findings { font-size: .86rem; }
.graph { display: grid; grid-template-columns: minmax(0, 3fr) minmax(14rem, 2fr); gap: 1.2rem; align-items: start; }
.graph svg { width: 100%; height: auto; max-height: 34rem; background: var(--panel); border: 1px solid var(--line);
  border-radius: .5rem; break-inside: avoid; }
.graph ol { margin: .3rem 0; padding-left: 1.4rem; } .graph li { margin: .35rem 0; overflow-wrap: anywhere; }
svg .link { stroke: var(--faint); stroke-opacity: .75; } svg .weak { stroke-dasharray: 5 5; }
svg .wanted { stroke: var(--good); stroke-width: 2.5; stroke-dasharray: 2 6; stroke-linecap: round; }
svg .plus { fill: var(--good); font: 700 22px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; }
svg .node { stroke: var(--paper); stroke-width: 1.5; } svg .node.marked { stroke: var(--problem); stroke-width: 3.5; }
svg .label { fill: var(--paper); font: 600 11px system-ui, sans-serif; text-anchor: middle;
  dominant-baseline: central; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--faint); font-weight: 600; } td.name, td.reason { overflow-wrap: anywhere; }
td.name { min-width: 8rem; }
td.number-cell, th.number-cell { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars { display: block; width: 9rem; }
.bars rect.before { fill: var(--before); } .bars rect.after { fill: var(--after); }
.bars text { fill: var(--ink); font: 11px system-ui, sans-serif; dominant-baseline: central; }
details { margin-top: 1.5rem; } summary { cursor: pointer; color: var(--faint); }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .7rem; overflow-x: auto;
  font-size: .8rem; }
@media (max-width: 46rem) { .graph { grid-template-columns: 1fr; } body { padding: .8rem; } }
@media print {
  :root { color-scheme: light; --paper: #ffffff; --ink: #000000; --faint: #444444; --panel: #ffffff; --line: #bbbbbb;
    --problem: #b3261e; --problem-back: #fdecea; --doubt: #8a5300; --doubt-back: #fff3dc; --note: #2f5a8a;
    --note-back: #e9f1fa; --good: #1a7f37; --before: #9aa4af; --after: #1f77b4; --part-0: #1f77b4; --part-1: #d6541d;
    --part-2: #2a8f3c; --part-3: #8b5fbf; --part-4: #8a6d3b; --part-5: #b0307c; }
  html { font-size: 11.5px; } body { max-width: none; padding: 0; } details:not([open]) { display: none; }
  h2 { break-after: avoid; } tr, .tile { break-inside: avoid; } svg rect, svg circle { print-color-adjust: exact; } }
"""
