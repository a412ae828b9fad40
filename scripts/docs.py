#!/usr/bin/env python3
"""Builds the documentation as a site, with a page for each command that holds the options the program itself prints.

    scripts/docs.py QEVAL [-o DIR]     default: build/site; needs nothing installed but Python (mkdocs comes from PyPI)

A warning is an error: a link or an anchor that leads nowhere, a page that no other names."""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from packages import ROOT, environment_python, pip, stop  # noqa: E402

PAGES = ["README.md", "CHANGELOG.md", "SECURITY.md", "docs", "tests/goldens/README.md", "datasets/sample/README.md"]
NAVIGATION = [
    ("Start", ["README.md", "docs/concepts.md", "docs/commands.md", "docs/building.md", "docs/troubleshooting.md"]),
    ("Evaluate", ["docs/models.md", "docs/quantized.md", "docs/tasks.md", "docs/data.md", "docs/chat.md", "docs/comparing.md",
                  "docs/reports.md", "docs/serving.md", "docs/python.md", "docs/scaling.md", "docs/performance.md"]),
    ("Quantize", ["docs/quantization.md", "docs/methods.md", "docs/integer.md", "docs/export.md", "docs/file-formats.md"]),
    ("Specification", ["docs/specification.md", "docs/architectures.md"]),
    ("Contribute", ["docs/architecture.md", "docs/decisions.md", "docs/extending.md", "docs/adding-a-task.md",
                    "docs/reliability.md", "SECURITY.md", "CHANGELOG.md"]),
]
EXAMPLE = ["docs/example/report.md"]


def commands(qeval):
    """(name, what it is for) of each command, from the program's own help."""
    text = subprocess.run([qeval, "help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  (\w+) +(\S.*)$", text.split("Commands:\n", 1)[1].split("\n\n", 1)[0], re.M)


def described(name, guide):
    """What docs/commands.md says about a command: from the paragraph that begins with its name to the next one's."""
    found = re.search(rf"^\*\*{name}\*\* .*?(?=^\*\*\w+\*\* |^## |\Z)", guide, re.M | re.S)
    return re.sub(r"\]\((?!\w+:)", "](../", found[0]) if found else ""


def without_lost_links(page, source):
    """Links to files that are no part of the site (sources, scripts) become plain names."""
    def link(match):
        text, target = match[1], match[2].split("#")[0]
        if not target or re.match(r"\w+:", target) or (page.parent / target).resolve().is_file():
            return match[0]
        return text
    return re.sub(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)", link, source)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("qeval")
    parser.add_argument("-o", default=str(ROOT / "build/site"), metavar="DIR")
    arguments = parser.parse_args()
    out = Path(arguments.o).resolve()
    work = ROOT / "build/site-source"
    shutil.rmtree(work, ignore_errors=True)
    for name in PAGES:
        to = work / "pages" / name
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, to)
    guide = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    names = []
    for name, summary in commands(arguments.qeval):
        help_text = subprocess.run([arguments.qeval, "help", name], capture_output=True, text=True, check=True).stdout
        page = work / "pages/docs/commands" / f"{name}.md"
        page.parent.mkdir(exist_ok=True)
        page.write_text(f"# qeval {name}\n\n{summary}.\n\n{described(name, guide)}\n\n## Options\n\n```\n{help_text}```\n",
                        encoding="utf-8")
        names.append(f"docs/commands/{name}.md")
    for page in (work / "pages").rglob("*.md"):
        page.write_text(without_lost_links(page, page.read_text(encoding="utf-8")), encoding="utf-8")
    sections = [*NAVIGATION[:1], ("Commands", names), *NAVIGATION[1:], ("Example", EXAMPLE)]
    navigation = "".join(f"  - {title}:\n" + "".join(f"      - {page}\n" for page in pages) for title, pages in sections)
    (work / "mkdocs.yml").write_text(f"""site_name: qeval
docs_dir: pages
site_dir: {out}
theme: readthedocs
nav:
{navigation}not_in_nav: |
  README.md
  docs/example/
  tests/
  datasets/
validation:
  nav: {{omitted_files: warn, not_found: warn, absolute_links: warn}}
  links: {{not_found: warn, anchors: warn, absolute_links: warn, unrecognized_links: warn}}
markdown_extensions:
  - tables
  - toc: {{slugify: !!python/object/apply:pymdownx.slugs.slugify {{kwds: {{case: lower}}}}}}
""", encoding="utf-8")
    pip(["install", "--quiet", "mkdocs", "pymdown-extensions"], "cannot install mkdocs")
    python = environment_python()
    built = subprocess.run([python, "-m", "mkdocs", "build", "--strict", "--clean", "-f", work / "mkdocs.yml"],
                           capture_output=True, text=True, check=False)
    if built.returncode:
        stop(f"the site has warnings:\n{built.stdout}{built.stderr}")
    print(f"ok {out}/index.html, {sum(1 for _ in out.rglob('index.html'))} pages")


if __name__ == "__main__":
    main()
