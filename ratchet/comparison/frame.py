"""The page's frame: structure and style, with `$names` where its parts go."""

from ratchet.page_parts import HEAD

PAGE = (
    HEAD
    + """
:root { --other: #b3bcc5; --t0: #0b67a3; --t1: #c2500f; --t2: #00795a; --t3: #8a3ea8; --t4: #a97800; --t5: #c02668 }
@media (prefers-color-scheme: dark) {
  :root { --other: #59646f; --t0: #63b3ea; --t1: #ff8f5a; --t2: #3fc79a; --t3: #c792ea; --t4: #e6b93f; --t5: #ff7eb0 } }
main { max-width: 70rem; margin: 0 auto; padding: 1.8rem 1.5rem 4rem }
header h1 { margin: .1rem 0 .5rem; font-size: 1.9rem; line-height: 1.15; font-weight: 650; overflow-wrap: anywhere }
.what { color: var(--faint) }
.best { font-size: 1.15rem; overflow-wrap: anywhere }
tr[data-t]:hover td { background: var(--soft) }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.rank { width: 1.6rem; white-space: nowrap; font-variant-numeric: tabular-nums }
.name { overflow-wrap: anywhere; min-width: 8rem }
tr[data-t="0"] .name { font-weight: 600 }
td i, th i, .legend i { display: inline-block; width: .75rem; height: .75rem; border-radius: 3px; vertical-align: -.05rem;
  margin-right: .4rem }
.state small { display: block; color: var(--faint); max-width: 22rem; line-height: 1.3 }
.finished, .reused { color: var(--good) } .pruned, .stopped { color: var(--warn) } .failed { color: var(--bad) }
a { color: var(--t0) }
.scroll + .hint { margin-top: .6rem }
svg { width: 100%; min-width: var(--least); height: auto; display: block; overflow: visible;
  font: 12px system-ui, "Segoe UI", Roboto, sans-serif }
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
.pair { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)) }
td.last { color: var(--faint); font-style: italic }
.pair { margin-top: 1.6rem } .pair figure { max-width: 33rem }
figcaption { font-size: .9rem; padding-bottom: .35rem; color: var(--faint); overflow-wrap: anywhere }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .9rem; color: var(--faint); font-size: .9rem }
.seen { width: auto; table-layout: fixed }
.seen th { color: var(--ink); white-space: normal; overflow-wrap: anywhere; vertical-align: bottom }
.seen td, .seen th { width: 13rem; min-width: 8rem; border: 0; padding: .3rem .6rem .3rem 0 }
.seen small { color: var(--faint); overflow-wrap: anywhere }
img { width: 100%; height: auto; display: block; border-radius: 6px; background: #fff }
$hover
@media print { svg { min-width: 0 } .seen tr { break-inside: avoid } }
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
)
