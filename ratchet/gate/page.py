"""The HTML page's frame: structure and style, with `$names` where the report puts its parts."""

PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<meta name=color-scheme content="light dark">
<title>$title</title>
<style>
:root { --ink: #1c2126; --faint: #5b6570; --rule: #dde2e7; --soft: #f4f6f8; --page: #fff; --note: #fff6df;
  --promote: #00795a; --inconclusive: #a86600; --reject: #b8440c;
  --passed: #00795a; --undecided: #a86600; --failed: #b8440c; --measured: #0b67a3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --faint: #9aa5b1; --rule: #333b44; --soft: #1d232a; --page: #14181d; --note: #2d2613;
    --promote: #00694e; --inconclusive: #8a5600; --reject: #9c3a0b;
    --passed: #3fc79a; --undecided: #e9a83c; --failed: #ff8f5a; --measured: #63b3ea } }
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: var(--page); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif }
header { color: #fff; background: var(--$outcome) }
header > div, main { max-width: 66rem; margin: 0 auto; padding: 1.8rem 1.5rem }
header p { margin: 0 }
header h1 { margin: .15rem 0 .5rem; font-size: 2rem; line-height: 1.15; font-weight: 650 }
header .what { opacity: .85 }
header .why { font-size: 1.08rem; max-width: 52rem; overflow-wrap: anywhere }
main { padding-top: .5rem }
section { margin: 2.4rem 0 }
h2 { font-size: 1.2rem; margin: 0 0 .3rem; font-weight: 650 }
.hint { margin: 0 0 .9rem; color: var(--faint); font-size: .9rem }
.note { margin: 1rem 0 0; padding: .7rem 1rem; border-left: 4px solid var(--undecided); background: var(--note) }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem; margin: 1.5rem 0 }
.figures div { padding: .8rem 1rem; background: var(--soft); border-radius: 8px }
.figures b { display: block; font-size: 1.4rem; font-weight: 650; font-variant-numeric: tabular-nums }
.figures span { color: var(--faint); font-size: .85rem; line-height: 1.3; display: block }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse; font-size: .92rem }
table.narrow { width: auto; min-width: min(28rem, 100%) }
th { text-align: left; color: var(--faint); font-weight: 500; font-size: .82rem; white-space: nowrap }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
td { overflow-wrap: break-word; max-width: 34rem }
td.on { min-width: 6.5rem; max-width: 14rem }
.n { text-align: right; font-variant-numeric: tabular-nums; padding: .42rem 0 .42rem 1.5rem; white-space: nowrap }
.mark { font-weight: 600; white-space: nowrap }
.rule { white-space: nowrap }
.passed .mark { color: var(--passed) }
.failed .mark { color: var(--failed) }
.undecided .mark { color: var(--undecided) }
.chart { display: grid; grid-template-columns: fit-content(15rem) minmax(8rem, 1fr) auto; column-gap: 1rem;
  font-size: .9rem }
.row { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center }
.row .label { padding: .25rem 0; overflow-wrap: anywhere; line-height: 1.25 }
.row .text { color: var(--faint); font-variant-numeric: tabular-nums; white-space: nowrap }
.row .text b { color: var(--ink); font-weight: 600 }
.track { position: relative; align-self: stretch; min-height: 1.9rem }
.track i { position: absolute; top: 50%; transform: translate(-50%, -50%) }
.track .bar { height: .55rem; border-radius: 3px; background: var(--state); opacity: .38; transform: translateY(-50%) }
.track .open-low { border-radius: 0; background: linear-gradient(to right, transparent, var(--state) 20%) }
.track .open-high { border-radius: 0; background: linear-gradient(to left, transparent, var(--state) 20%) }
.track .dot { width: .72rem; height: .72rem; border-radius: 50%; background: var(--state) }
.track .line { width: 2px; height: 1.25rem; background: var(--ink) }
.track .zero { width: 1px; height: 100%; background: var(--rule) }
.row.passed { --state: var(--passed) }
.row.undecided { --state: var(--undecided) }
.row.failed { --state: var(--failed) }
.row.measured { --state: var(--measured) }
.axis { position: relative; grid-column: 2; height: 1.5rem; border-top: 1px solid var(--rule) }
.axis span { position: absolute; transform: translateX(-50%); color: var(--faint); font-size: .8rem; top: .15rem;
  font-variant-numeric: tabular-nums }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .9rem; color: var(--faint); font-size: .9rem }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .4rem;
  vertical-align: -.06rem }
img { max-width: 100%; height: auto; display: block }
.example { margin: 0 0 1.5rem }
.example p { margin: 0 0 .35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.example .up { color: var(--passed); font-weight: 600 }
.example .down { color: var(--failed); font-weight: 600 }
.strip { display: grid; grid-template-columns: repeat(4, minmax(0, 15rem)); gap: .5rem }
figure { margin: 0 }
figure img { width: 100%; max-height: 15rem; object-fit: contain; object-position: left top }
figcaption { color: var(--faint); font-size: .82rem; padding-top: .15rem }
code, pre { font: .86em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
pre { margin: .3rem 0; padding: .7rem 1rem; background: var(--soft); border-radius: 8px; overflow-x: auto }
details summary { cursor: pointer; color: var(--faint); padding: .4rem 0 }
@media (max-width: 46rem) {
  header h1 { font-size: 1.6rem }
  header > div, main { padding-left: 1rem; padding-right: 1rem }
  .chart { display: block }
  .row { grid-template-columns: minmax(0, 1fr) auto; column-gap: .8rem; padding-top: .4rem }
  .track { grid-column: 1 / -1; grid-row: 2; min-height: 1.5rem }
  .row .text span { display: none }
  .checks tr:first-child { display: none }
  .checks tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--rule) }
  .checks td { display: inline; border: 0; padding: 0 .5rem 0 0 }
  .checks td.asked, .checks td.why { display: block; padding: 0 }
  .checks td.asked { color: var(--faint) }
  .facts th, .facts td { display: block; border: 0; padding: .1rem 0 }
  .strip { grid-template-columns: repeat(2, minmax(0, 1fr)) }
}
@media print { header { color: #000; background: none; border-bottom: 3px solid var(--$outcome) } }
</style>
<header><div><p class=what>$what<h1>$title</h1><p class=why>$sentence</p></div></header>
<main>
$notes
<div class=figures>$figures</div>
$interval
$checks
$classes
$costs
$worsened
$improved
$again
</main>
</html>
"""
