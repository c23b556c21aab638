"""What the Python suites share: cases that say `ok <name>` and an exit code that says whether all did."""

import sys
import time
import traceback

_cases = []


def case(function):
    """Registers a case; it is named after its function."""
    _cases.append(function)
    return function


def url():
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} postgres://user:password@host:port/database")
    return sys.argv[1]


def report(name, run):
    """Runs one case; returns whether it passed."""
    begun = time.monotonic()
    try:
        run()
    except Exception:
        print(f"FAILED {name}", flush=True)
        traceback.print_exc()
        return False
    print(f"ok {name} ({(time.monotonic() - begun) * 1000:.0f} ms)", flush=True)
    return True


def run_all(call):
    """`call(function)` runs one registered case. A case named on the command line runs alone."""
    chosen = sys.argv[2:]
    wanted = [f for f in _cases if not chosen or f.__name__ in chosen]
    failed = [f.__name__ for f in wanted if not report(f.__name__, lambda f=f: call(f))]
    print(f"{len(wanted) - len(failed)} passed, {len(failed)} failed", flush=True)
    sys.exit(1 if failed or not wanted else 0)


def expect(error_class, sqlstate=None):
    """`with expect(errors.UniqueViolation): …`: the block must fail so."""
    return _Expectation(error_class, sqlstate)


class _Expectation:
    def __init__(self, error_class, sqlstate):
        self.error_class, self.sqlstate, self.error = error_class, sqlstate, None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None:
            raise AssertionError(f"{self.error_class.__name__} was expected, nothing failed")
        if not isinstance(error, self.error_class):
            return False
        if self.sqlstate is not None:
            assert error.sqlstate == self.sqlstate, (error.sqlstate, str(error))
        self.error = error
        return True
