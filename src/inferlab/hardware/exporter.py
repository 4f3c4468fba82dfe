"""The latest samples as Prometheus metrics, computed only when they are scraped."""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from inferlab.errors import UsageError
from inferlab.hardware.sample import FIELD_NAMES, GpuSample, carry_gpm

PREFIX = "inferlab_gpu_"
NOT_GAUGES = {"monotonic_s", "wall_time_s", "index", "phase", "energy_j", "throttle_reasons"}


class SampleCollector(Collector):
    """Serves the samples last handed to `update`, labelled by GPU index and name."""

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._latest: dict[int, GpuSample] = {}

    def update(self, samples: Sequence[GpuSample]) -> None:
        """Replace each GPU's sample; a dictionary store is atomic, so no lock is held."""
        for each in samples:
            self._latest[each.index] = carry_gpm(each, self._latest.get(each.index))

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        latest = list(self._latest.values())
        for field in (name for name in FIELD_NAMES if name not in NOT_GAUGES):
            gauge = GaugeMetricFamily(PREFIX + field, f"GpuSample.{field}", labels=["gpu", "name"])
            for each in latest:
                if (value := getattr(each, field)) is not None:
                    gauge.add_metric(self._labels(each), float(value))
            yield gauge
        yield self._energy(latest)
        yield self._throttle(latest)

    def _energy(self, latest: list[GpuSample]) -> CounterMetricFamily:
        counter = CounterMetricFamily(
            PREFIX + "energy_joules", "NVML total energy counter", labels=["gpu", "name"]
        )
        for each in latest:
            if each.energy_j is not None:
                counter.add_metric(self._labels(each), each.energy_j)
        return counter

    def _throttle(self, latest: list[GpuSample]) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(
            PREFIX + "throttle_active",
            "active clock event reasons",
            labels=["gpu", "name", "reason"],
        )
        for each in latest:
            for reason in each.throttle_reasons or ():
                gauge.add_metric([*self._labels(each), reason], 1.0)
        return gauge

    def _labels(self, sample: GpuSample) -> list[str]:
        return [str(sample.index), self._names.get(sample.index, "")]


def serve(collector: SampleCollector, port: int, address: str = "127.0.0.1") -> int:
    """Serve `/metrics` from a daemon thread; returns the port in use (0 asks for a free one).

    Raises:
        UsageError: the port is taken or not allowed.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, _ = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise UsageError(
            f"无法监听 {address}:{port}：{error.strerror}", remedy="换一个 --prometheus 端口"
        ) from None
    return int(server.server_port)
