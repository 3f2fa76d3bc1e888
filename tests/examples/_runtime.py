"""What Lambda's runtime does with a handler: one event after the other. Lines of JSON in, lines of JSON out."""

import json
import sys
from importlib import import_module

lambda_handler = import_module("examples.lambda_handler")

print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    print(json.dumps(lambda_handler.handler(json.loads(line))), flush=True)
