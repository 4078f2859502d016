"""A current ClickHouse inside a process of its own: a JSON object a line in, with a statement; one out, with what it said."""

import json
import sys

from chdb.session import Session


def main(directory: str) -> None:
    session = Session(directory)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said = {"text": str(session.query(asked["statement"], asked["format"]))}
        except Exception as error:  # noqa: BLE001  # whatever it is, the test is to see it
            said = {"error": str(error)}
        print(json.dumps(said), flush=True)  # noqa: T201  # its answer


main(sys.argv[1])
