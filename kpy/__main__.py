"""The `kpy` command. Each command's module is imported when it runs, so that nothing waits for what it does not use."""

import sys
from collections.abc import Sequence

from kpy.cli.arguments import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 called or configured wrongly, 130 interrupted."""
    options = parse(arguments)
    try:
        if options.command == "start":
            from kpy.cli.start import start

            return start(options)
        if options.command == "decode":
            from kpy.cli.decode import decode

            return decode(options)
        if options.command == "proxy":
            from kpy.cli.proxy import proxy

            return proxy(options)
        if options.command == "dump-log":
            from kpy.cli.dump_log import dump_log

            return dump_log(options)
        if options.command == "check-data":
            from kpy.cli.check_data import check_data

            return check_data(options)
        if options.command == "bench":
            from kpy.cli.bench import bench

            return bench(options)
        from kpy.cli.print_config import print_config

        return print_config(options)
    except KeyboardInterrupt:
        # Ctrl-C before the broker listens for signals, or in a command that has nothing to stop.
        return 130


if __name__ == "__main__":
    sys.exit(main())
