"""What a robot observes, looked up in the rings of its streams."""

from collections.abc import Mapping, Sequence

import numpy as np

from dp_hub.errors import RobotError
from dp_hub.robot.clock import Clock
from dp_hub.robot.config import RobotConfig
from dp_hub.robot.fields import Field
from dp_hub.robot.observing.align import (
    Observation,
    StreamUse,
    anchor,
    check_fresh,
    observe,
    samples_needed,
)
from dp_hub.robot.observing.features import FeatureUse, as_features, feature_shapes
from dp_hub.robot.session.uses import feature_uses, stream_uses
from dp_hub.robot.shared.ring import Ring, Samples


class Eyes:
    """Observes by the times at which things were true.

    Args:
        config: of the robot.
        rings: by stream.
        rates_hz: of the rings.
        fields: by what can be observed, `Parts.streams`.
        clock: for how old things are.
    Raises:
        ConfigError: a feature of the configuration is not possible.

    Attributes:
        features: what the configuration observes.
    """

    def __init__(
        self,
        config: RobotConfig,
        rings: Mapping[str, Ring],
        rates_hz: Mapping[str, float],
        fields: Mapping[str, Field],
        clock: Clock,
    ) -> None:
        self._config, self._rings, self._rates_hz = config, rings, rates_hz
        self._fields, self._clock = fields, clock
        self._not_before_s = -np.inf
        self.features = feature_uses(config)
        feature_shapes(self.features, fields)

    def forget(self, before_s: float) -> None:
        """Observe nothing from before a time."""
        self._not_before_s = before_s

    def newest_s(self, features: Sequence[str] | None = None) -> float:
        """When the newest step of `observe` would be, without looking at it.

        Raises:
            Stale: a stream's newest value is too old.
            RobotError: no such feature is observed.
        """
        uses = self._uses(self._chosen(features))
        newest_s = {
            name: self._rings[use.ring].newest_s - use.latency_s for name, use in uses.items()
        }
        check_fresh(newest_s, uses, now_s=self._clock.now_s())
        return anchor(newest_s)

    def observe(self, n_obs_steps: int, features: Sequence[str] | None = None) -> Observation:
        """What is observed now.

        Args:
            n_obs_steps: To, the newest of them as new as every stream allows.
            features: to look at; None: all of the configuration.
        Raises:
            Stale: a stream's newest value is too old.
            RobotError: no such feature is observed, or numbers that are not finite.
        """
        chosen = self._chosen(features)
        uses = self._uses(chosen)
        seen = observe(
            self._samples(uses, n_obs_steps),
            uses,
            now_s=self._clock.now_s(),
            n_obs_steps=n_obs_steps,
            period_s=self._config.period_s,
        )
        return as_features(seen, chosen)

    def _samples(self, uses: Mapping[str, StreamUse], n_obs_steps: int) -> dict[str, Samples]:
        oldest_s = max(use.max_age_s for use in uses.values())
        samples = {}
        for name, latency_s in {use.ring: use.latency_s for use in uses.values()}.items():
            needed = samples_needed(
                self._rates_hz[name],
                n_obs_steps=n_obs_steps,
                period_s=self._config.period_s,
                max_age_s=oldest_s,
            )
            newest = self._rings[name].last(needed)
            samples[name] = _since(newest, self._not_before_s + latency_s)
        return samples

    def _chosen(self, features: Sequence[str] | None) -> dict[str, FeatureUse]:
        if features is None:
            return self.features
        for name in features:
            if name not in self.features:
                raise RobotError(
                    f"the robot does not observe {name}",
                    hint=f"its configuration observes {', '.join(self.features)}",
                )
        return {name: self.features[name] for name in features}

    def _uses(self, features: Mapping[str, FeatureUse]) -> dict[str, StreamUse]:
        return stream_uses(self._config, features, self._fields)


def _since(samples: Samples, time_s: float) -> Samples:
    """Those from a time on, or the newest if there is none."""
    if not len(samples) or samples.times_s[0] >= time_s:
        return samples
    first = min(int(np.searchsorted(samples.times_s, time_s)), len(samples) - 1)
    return Samples(
        samples.numbers[first:],
        samples.times_s[first:],
        samples.put_s[first:],
        {name: values[first:] for name, values in samples.values.items()},
        samples.lost,
    )
