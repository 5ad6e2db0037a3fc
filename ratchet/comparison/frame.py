"""The page's frame: structure and style, with `$names` where its parts go."""

PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>$title</title>
<style>
:root { --ink: #1c2126; --faint: #5b6570; --rule: #dde2e7; --soft: #f4f6f8; --page: #fff; --note: #fff6df;
  --other: #b3bcc5; --t0: #0b67a3; --t1: #c2500f; --t2: #00795a; --t3: #8a3ea8; --t4: #a97800; --t5: #c02668;
  --good: #00795a; --warn: #a86600; --bad: #b8440c }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --faint: #9aa5b1; --rule: #333b44; --soft: #1d232a; --page: #14181d; --note: #2d2613;
    --other: #59646f; --t0: #63b3ea; --t1: #ff8f5a; --t2: #3fc79a; --t3: #c792ea; --t4: #e6b93f; --t5: #ff7eb0;
    --good: #3fc79a; --warn: #e9a83c; --bad: #ff8f5a } }
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif }
main { max-width: 70rem; margin: 0 auto; padding: 1.8rem 1.5rem 4rem }
header p { margin: 0 }
header h1 { margin: .1rem 0 .5rem; font-size: 1.9rem; line-height: 1.15; font-weight: 650; overflow-wrap: anywhere }
.what { color: var(--faint) }
.best { font-size: 1.15rem; overflow-wrap: anywhere }
section { margin: 2.6rem 0 }
h2 { font-size: 1.2rem; margin: 0 0 .2rem; font-weight: 650 }
.hint { margin: 0 0 .8rem; color: var(--faint); font-size: .9rem }
.note { margin: 1rem 0 0; padding: .7rem 1rem; border-left: 4px solid var(--warn); background: var(--note) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.4rem 0 }
.figures div { padding: .8rem 1rem; background: var(--soft); border-radius: 8px }
.figures b { display: block; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums }
.figures span { color: var(--faint); font-size: .85rem; line-height: 1.3; display: block }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: .92rem }
th { text-align: left; color: var(--faint); font-weight: 500; font-size: .82rem; white-space: nowrap }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
tr[data-t]:hover td { background: var(--soft) }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
td:first-child { width: 1.6rem }
.name { overflow-wrap: anywhere; min-width: 8rem }
tr[data-t="0"] .name { font-weight: 600 }
td i, figcaption i { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px; vertical-align: -.05rem;
  margin-right: .4rem }
.state small { display: block; color: var(--faint); max-width: 22rem; line-height: 1.3 }
.finished, .reused { color: var(--good) } .pruned, .stopped { color: var(--warn) } .failed { color: var(--bad) }
a { color: var(--t0) }
code { font: .86em ui-monospace, Menlo, Consolas, monospace }
svg { width: 100%; height: auto; display: block; font: 12px system-ui, "Segoe UI", Roboto, sans-serif; overflow: visible }
.trial .name.halo { stroke-width: 3px }
.grid { stroke: var(--rule) } .axis { stroke: var(--faint) }
.tick { fill: var(--faint); font-variant-numeric: tabular-nums }
.halo { paint-order: stroke; stroke: var(--page); stroke-width: 4px; stroke-linejoin: round }
.title { fill: var(--ink); font-weight: 600 }
.trial { transition: opacity .12s }
.trial .line { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round }
.trial.other .line { stroke-width: 1.3 }
.trial.unfinished .line { stroke-dasharray: 5 4 }
.trial .touch { fill: none; stroke: transparent; stroke-width: 14 }
.trial circle { fill: var(--c); stroke: var(--page); stroke-width: 1.2 }
.trial .end { stroke: var(--c); stroke-width: 2; fill: none }
.trial .lead { stroke: var(--c); stroke-width: 1; opacity: .5; fill: none }
.trial .name { fill: var(--c); font-weight: 600 }
.trial:hover .line { stroke-width: 3.4 }
.pair, .winners { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)) }
.winners { grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 21.4rem)) }
td.last { color: var(--faint); font-style: italic }
.pair { margin-top: 1.6rem } .pair figure { max-width: 33rem }
figure { margin: 0 }
figcaption { font-size: .9rem; padding-bottom: .35rem; color: var(--faint); overflow-wrap: anywhere }
.winners figcaption { color: var(--ink) }
img { width: 100%; height: auto; display: block; border-radius: 6px; background: #fff }
$hover
@media print { .winners { break-inside: avoid } }
</style>
<main>
<header><p class=what>$experiment<h1>$title</h1><p class=best>$sentence</p>$stopped</header>
<div class=figures>$figures</div>
<section>$table</section>
$curves
$parallel
$winners
</main>
</html>
"""
