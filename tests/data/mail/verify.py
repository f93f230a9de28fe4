"""Verifies the DKIM signatures of a mail with dkimpy; the keys stand in dns.json beside this file. Prints selector and verdict of each."""

import json
import pathlib
import re
import sys

import dkim

records = json.loads((pathlib.Path(__file__).parent / "dns.json").read_text())
mail = pathlib.Path(sys.argv[1]).read_bytes()


def dns(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return records[name].encode()


signatures = [value for name, value in dkim.DKIM(mail).headers if name.lower() == b"dkim-signature"]
for index, value in enumerate(signatures):
    selector = re.search(rb"s=([^;]+)", value).group(1).decode().strip()
    try:
        verdict = dkim.DKIM(mail).verify(idx=index, dnsfunc=dns)
    except dkim.DKIMException:
        verdict = False
    print(selector, verdict)
