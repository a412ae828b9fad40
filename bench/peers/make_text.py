"""Running text from the passages of BoolQ, each once.

usage: make_text.py DATA > TEXT
"""

import json
import os
import sys


def main():
    seen = set()
    with open(os.path.join(sys.argv[1], "boolq", "validation.jsonl"), encoding="utf-8") as file:
        for line in file:
            passage = json.loads(line)["passage"]
            if passage not in seen:
                seen.add(passage)
                print(passage, end="\n\n")


if __name__ == "__main__":
    main()
