"""Every setting with its type, default and unit, as one frozen tree; settings.py reads it from file and environment.

Defaults, units and meanings stand here and nowhere else, a module for each table of the file: `make settings-docs`
writes docs/configuration.md from the text below each setting.
"""

from pathlib import Path

from appliance.config.drift import DriftConfig as DriftConfig
from appliance.config.experiments import ExperimentsConfig as ExperimentsConfig
from appliance.config.http import HttpConfig as HttpConfig
from appliance.config.log import LogConfig as LogConfig
from appliance.config.log import PredictionLogConfig as PredictionLogConfig
from appliance.config.models import ModelsConfig as ModelsConfig
from appliance.config.mqtt import BrokerConfig as BrokerConfig
from appliance.config.mqtt import FeedConfig as FeedConfig
from appliance.config.mqtt import MqttConfig as MqttConfig
from appliance.config.mqtt import RowsConfig as RowsConfig
from appliance.config.mqtt import SubscriptionConfig as SubscriptionConfig
from appliance.config.mqtt import UpstreamConfig as UpstreamConfig
from appliance.config.probation import ProbationConfig as ProbationConfig
from appliance.config.quality import QualityConfig as QualityConfig
from appliance.config.section import Section as Section
from appliance.config.store import DEFAULT_STATE_DIR as DEFAULT_STATE_DIR
from appliance.config.store import PullConfig as PullConfig
from appliance.config.store import StoreConfig as StoreConfig


class Config(Section, frozen=True):
    """The whole configuration."""

    http: HttpConfig = HttpConfig()
    models: ModelsConfig = ModelsConfig()
    store: StoreConfig = StoreConfig()
    mqtt: MqttConfig = MqttConfig()
    pull: PullConfig = PullConfig()
    experiments: ExperimentsConfig = ExperimentsConfig()
    probation: ProbationConfig = ProbationConfig()
    log: LogConfig = LogConfig()
    drift: DriftConfig = DriftConfig()
    quality: QualityConfig = QualityConfig()

    @property
    def state_dir(self) -> Path:
        """The state folder."""
        return Path(self.store.state_dir)
