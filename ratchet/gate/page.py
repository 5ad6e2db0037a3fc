"""The HTML page's frame: structure and style, with `$names` where the report puts its parts."""

PAGE = """<!doctype html>
<html lang=en>
<meta charset=utf-8>
<meta name=viewport content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { --ink: #1f2328; --faint: #59636e; --rule: #d8dee4; --soft: #f6f8fa; --promote: #00795a; --reject: #b3480a;
  --inconclusive: #9a6400 }
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif }
header { color: #fff; background: var(--$outcome); padding: 2rem max(1.5rem, calc(50vw - 34rem)) 1.8rem }
header h1 { margin: 0 0 .4rem; font-size: 1.9rem; line-height: 1.2; font-weight: 650 }
header p { margin: 0; max-width: 60rem; font-size: 1.05rem }
main { max-width: 71rem; margin: 0 auto; padding: 1.5rem }
section { margin: 2.2rem 0 }
h2 { font-size: 1.15rem; margin: 0 0 .7rem; font-weight: 650 }
.note { margin: 0 0 1rem; padding: .7rem 1rem; border-left: 4px solid var(--inconclusive); background: #fff8e6 }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem }
.figures div { padding: .8rem 1rem; background: var(--soft); border-radius: 8px }
.figures b { display: block; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums }
.figures span { color: var(--faint); font-size: .85rem }
table { width: 100%; border-collapse: collapse; font-size: .92rem }
table.narrow { width: auto; min-width: 28rem }
th { text-align: left; color: var(--faint); font-weight: 500; font-size: .82rem }
th, td { padding: .42rem .9rem .42rem 0; border-bottom: 1px solid var(--rule); vertical-align: top }
.n { text-align: right; font-variant-numeric: tabular-nums; padding: .42rem 0 .42rem 1.5rem }
.mark { font-weight: 600 }
.mark, .mark + td { white-space: nowrap }
.passed .mark { color: var(--promote) }
.failed .mark { color: var(--reject) }
.undecided .mark { color: var(--inconclusive) }
img { max-width: 100%; height: auto; display: block }
.example { margin: 0 0 1.4rem }
.example p { margin: 0 0 .4rem; font-variant-numeric: tabular-nums }
.strip { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .5rem }
figure { margin: 0 }
figure img { width: 100%; border-radius: 4px }
figcaption { color: var(--faint); font-size: .82rem; padding-top: .15rem }
code { font: .86em ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere }
details summary { cursor: pointer; color: var(--faint) }
details th { width: 12rem }
@media print { header { color: #000; background: none; border-bottom: 3px solid var(--$outcome) } }
</style>
<header><h1>$title</h1><p>$sentence</p></header>
<main>
$notes
<div class=figures>$figures</div>
$interval
$checks
$classes
$costs
$worsened
$improved
<section><details><summary>What it was made from</summary><table>$facts</table></details></section>
</main>
</html>
"""
