#include "reports/render/html_assets.h"

namespace qeval::reports {

const char* const page_style =
    R"css(:root{--surface:#ffffff;--ink:#1c2024;--faint:#5b6570;--line:#d8dde3;--tint:#f5f7f9;--accent:#0066a1;--worse:#b34700;--better:#0066a1}
@media (prefers-color-scheme:dark){:root{--surface:#14171a;--ink:#e6e9ec;--faint:#9aa5b1;--line:#333a42;--tint:#1c2126;--accent:#6cc0f0;--worse:#ff9a5c;--better:#6cc0f0}}
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:2.5rem 1.25rem 4rem;max-width:68rem;background:var(--surface);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1rem;overflow-wrap:anywhere;text-wrap:balance}
h2{font-size:1.2rem;margin:3rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}
p,li{max-width:46rem;overflow-wrap:anywhere}
a{color:var(--accent)}
.verdict{list-style:none;margin:0;padding:0 0 0 1rem;border-left:3px solid var(--accent)}
.verdict li{margin:0 0 .4rem}
.verdict li:first-child{font-size:1.15rem;line-height:1.4;font-weight:600}
nav{margin:1.5rem 0 0;font-size:.875rem;color:var(--faint)}
nav a{display:inline-block;margin-right:1rem;text-decoration:none;line-height:2}
nav a:hover{text-decoration:underline}
.caption,.small{font-size:.875rem;color:var(--faint)}
.wide{overflow-x:auto;margin:1rem 0 .5rem}
table{border-collapse:separate;border-spacing:0;font-size:.875rem;line-height:1.35}
th,td{padding:.4rem .9rem .4rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
td{overflow-wrap:break-word;max-width:22rem}
thead th{vertical-align:bottom;border-bottom:1.5px solid var(--ink);font-weight:600;white-space:nowrap}
th .detail{display:block;margin-left:auto;max-width:6.75rem;white-space:normal;font-weight:400;font-size:.75rem;color:var(--faint)}
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;padding:.4rem 1.5rem .4rem .5rem}
th:first-child,td:first-child{position:sticky;left:0;background:var(--surface);min-width:6.5rem}
th button{all:unset;cursor:pointer}
th button:focus-visible,summary:focus-visible,select:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
th button::after{content:"";display:inline-block;width:.9em;text-align:right;color:var(--accent)}
th[aria-sort=ascending] button::after{content:"▴"}
th[aria-sort=descending] button::after{content:"▾"}
th.n button::after{margin-right:-.9em}
.e{color:var(--faint)}
.d{display:block;font-size:.8125rem;color:var(--faint)}
.d.worse{color:var(--worse);font-weight:600}.d.better{color:var(--better);font-weight:600}
.m{display:inline-block;width:0;white-space:nowrap;overflow:visible;text-indent:.15em}
tr.base td{background:var(--tint)}
tr.group td{border-top:2px solid var(--faint)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:1.5rem 2rem;margin:1rem 0}
.plots figure{margin:0}
.plots svg{display:block;width:100%;max-width:32rem;height:auto}
pre{font:.8125rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;background:var(--tint);padding:.75rem 1rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere;border-radius:4px}
.filters{display:flex;flex-wrap:wrap;gap:.5rem 1rem;margin:1.5rem 0 .75rem;font-size:.875rem}
.filters select{font:inherit;max-width:16rem;color:inherit;background:var(--surface);border:1px solid var(--line);border-radius:4px;padding:.2rem .4rem}
details{border-bottom:1px solid var(--line)}
summary{cursor:pointer;padding:.5rem 0;overflow-wrap:anywhere}
summary .small{margin-left:.25rem}
.question{white-space:pre-wrap;overflow-wrap:anywhere;margin:.25rem 0 .75rem;max-width:46rem}
details table{margin:0 0 1rem}
details td:first-child,details th:first-child{position:static;min-width:0}
tr.gold td:nth-child(2){font-weight:600}
footer{margin-top:3rem;padding-top:.75rem;border-top:1px solid var(--line)}
[hidden],.narrow{display:none}
@media (max-width:40rem){body{padding:1.25rem 1rem 3rem}h1{font-size:1.4rem}h2{margin-top:2.25rem}th,td{padding-right:.7rem}
.narrow{display:block}#table-scores tr>:nth-child(2),#table-scores tr>:nth-child(3){display:none}}
@media print{:root{--surface:#fff;--ink:#000;--faint:#444;--line:#bbb;--tint:#f4f4f4;--accent:#000;--worse:#803300;--better:#004a75}
body{max-width:none;padding:0;font-size:10pt}nav,.filters{display:none}.wide{overflow:visible}h2{break-after:avoid}figure,tr,details{break-inside:avoid}
th.n,td.n{padding:.25rem 1.1rem .25rem .25rem}table{font-size:8pt}.plots{grid-template-columns:1fr 1fr}}
)css";

const char* const page_script = R"js("use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], given = [...body.rows];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const order = now === "ascending" ? "descending" : now === "descending" ? "" : "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      if (order) head.setAttribute("aria-sort", order);
      const sign = order === "descending" ? -1 : 1;
      const rows = order === "" ? given : [...given].sort((a, b) => {
        const x = a.cells[column], y = b.cells[column];
        if (!("v" in x.dataset)) return sign * x.textContent.localeCompare(y.textContent, undefined, {numeric: true});
        if (x.dataset.v === "" || y.dataset.v === "") return (x.dataset.v === "") - (y.dataset.v === "");
        return sign * (Number(x.dataset.v) - Number(y.dataset.v));
      });
      table.classList.toggle("sorted", order !== "");
      body.append(...rows);
    });
  });
}
const filters = document.querySelector(".filters");
if (filters) {
  const selects = [...filters.querySelectorAll("select")], examples = [...document.querySelectorAll("details.example")];
  const count = filters.querySelector("output");
  const show = () => {
    let shown = 0;
    for (const example of examples) {
      example.hidden = selects.some(select => select.value !== "" && example.dataset[select.name] !== select.value);
      shown += example.hidden ? 0 : 1;
    }
    count.textContent = shown + " of " + examples.length + " shown";
  };
  selects.forEach(select => select.addEventListener("change", show));
  filters.hidden = false;
  if (examples.length > 24) selects[0].selectedIndex = 1;
  show();
}
)js";

}  // namespace qeval::reports
