"""The HTML page's frame: structure and style, with `$names` where the report puts its parts."""

from ratchet.page_parts import HEAD

PAGE = (
    HEAD
    + """
:root { --promote: #00795a; --inconclusive: #a86600; --reject: #b8440c }
@media (prefers-color-scheme: dark) {
  :root { --promote: #00694e; --inconclusive: #8a5600; --reject: #9c3a0b } }
header { color: #fff; background: var(--$outcome) }
header > div, main { max-width: 66rem; margin: 0 auto; padding: 1.8rem 1.5rem }
header h1 { margin: .15rem 0 .5rem; font-size: 2rem; line-height: 1.15; font-weight: 650 }
header .what { opacity: .85 }
header .why { font-size: 1.08rem; max-width: 52rem; overflow-wrap: anywhere }
main { padding-top: .5rem }
table.narrow { width: auto; min-width: min(28rem, 100%) }
td { overflow-wrap: break-word; max-width: 34rem }
td.on { min-width: 6.5rem; max-width: 14rem }
.n { text-align: right; font-variant-numeric: tabular-nums; padding: .42rem 0 .42rem 1.5rem; white-space: nowrap }
.mark { font-weight: 600; white-space: nowrap }
.rule { white-space: nowrap }
.passed .mark { color: var(--good) }
.failed .mark { color: var(--bad) }
.undecided .mark { color: var(--warn) }
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
.row.passed { --state: var(--good) }
.row.undecided { --state: var(--warn) }
.row.failed { --state: var(--bad) }
.row.measured { --state: var(--link) }
.axis { position: relative; grid-column: 2; height: 1.5rem; border-top: 1px solid var(--rule) }
.axis span { position: absolute; transform: translateX(-50%); color: var(--faint); font-size: .8rem; top: .15rem;
  font-variant-numeric: tabular-nums }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .9rem; color: var(--faint); font-size: .9rem }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: 3px; margin-right: .4rem;
  vertical-align: -.06rem }
img { max-width: 100%; height: auto; display: block }
.example { margin: 0 0 1.5rem }
.example p { margin: 0 0 .35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
.example .up { color: var(--good); font-weight: 600 }
.example .down { color: var(--bad); font-weight: 600 }
.strip { display: grid; grid-template-columns: repeat(4, minmax(0, 15rem)); gap: .5rem }
figure img { width: 100%; max-height: 15rem; object-fit: contain; object-position: left top }
figcaption { color: var(--faint); font-size: .82rem; padding-top: .15rem }
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
)
