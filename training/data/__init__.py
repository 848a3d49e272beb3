"""Recordings in, batches of frame pairs out."""

from training.data.config import DataConfig
from training.data.loading import Data, load_data, loader
from training.data.pairs import Sampler

__all__ = ["Data", "DataConfig", "Sampler", "load_data", "loader"]
