"""`python -m inferlab.engines.router`: routes until SIGTERM or Ctrl-C, then drains.

The first line on stdout is `{"listening": URL}`, then comes one line a request. Somebody must
read them, or send them to a file: a full pipe stops the router.
"""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Sequence

from inferlab.engines.router.options import Options, parse
from inferlab.engines.router.service import Service, routing
from inferlab.engines.router.trace import logger
from inferlab.errors import LabError
from inferlab.open_files import raise_file_limit


async def serve(options: Options) -> None:
    """Routes until a signal, then lets the open requests end.

    Raises:
        LabError: the address cannot be listened on.
    """
    async with routing(options) as service:
        logger.info(json.dumps({"listening": service.url}))
        await _signal(service)


async def _signal(service: Service) -> None:
    """Waits for SIGTERM or Ctrl-C; the next one ends the process at once, as usual."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    names = (signal.SIGTERM, signal.SIGINT)
    for name in names:
        loop.add_signal_handler(name, stop.set)
    stopped = asyncio.create_task(stop.wait())
    ended, _ = await asyncio.wait([stopped, *service.watches], return_when="FIRST_COMPLETED")
    for name in names:
        loop.remove_signal_handler(name)
    for task in ended:
        task.result()  # a watch that failed must not fail in silence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the router; the exit code is 0 (stopped), 1 (could not start) or 2 (wrong use)."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    raise_file_limit()
    try:
        asyncio.run(serve(parse(arguments)))
    except LabError as error:
        print(f"错误: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
