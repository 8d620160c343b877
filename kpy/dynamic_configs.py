"""The broker's configuration as the dynamic configs in the metadata change it (Kafka class DynamicBrokerConfig).

What cannot be used is never a reason to stop, at the start neither: as in Apache Kafka, a value that is not valid is
left out, and configs that do not fit together leave those of before in force. The log says so, once for each change.
"""

import logging
from collections.abc import Mapping

from kpy.config import BrokerConfig, ConfigError
from kpy.metadata.image import MetadataImage

log = logging.getLogger("kpy.server")


class DynamicConfigs:
    """`current` is the configuration as of the last image that was followed."""

    def __init__(self, config: BrokerConfig) -> None:
        self.current = config
        self._seen: tuple[Mapping[str, str], Mapping[str, str]] = (config.cluster_overrides, config.broker_overrides)

    def follow(self, image: MetadataImage) -> bool:
        """Whether the configuration is another one than before."""
        for_all = image.broker_configs.get("", {})
        for_this = image.broker_configs.get(str(self.current.broker_id), {})
        if (for_all, for_this) == self._seen:
            return False
        self._seen = for_all, for_this
        try:
            self.current = self.current.with_overrides(for_all, for_this)
        except ConfigError as error:
            log.error("dynamic configs do not fit together, and those of before stay: %s", error)
            return False
        for overrides, kept, whose in (
            (for_all, self.current.cluster_overrides, "all brokers"),
            (for_this, self.current.broker_overrides, "this broker"),
        ):
            if refused := sorted(overrides.keys() - kept.keys()):
                log.error("dynamic configs of %s are not valid and have no effect: %s", whose, ", ".join(refused))
        return True
