"""The node's settings while it runs: most apply at once, but a model is loaded beside the running one first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.task import Future

from keypoint_perception.errors import UserError
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.loading import ModelHost, Request
from keypoint_perception.ros.parameters import RELOADING, Settings, changes_of


class Tuning:
    """Takes parameters, and makes settings, parameters and the running model agree in the end."""

    def __init__(self, node: Node, settings: Settings, faults: Faults, on_change: Callable[[], None]) -> None:
        """settings: what the node was started with. on_change: called after `settings` or the model have changed."""
        self._node, self._faults, self._on_change = node, faults, on_change
        self.settings = settings
        """What holds at present: of the running model, while another is loaded."""
        self.host = ModelHost(node, self._note_swap)
        self._waiting: dict[str, Any] = {}
        """What was asked for while a model is loaded, to be loaded next."""
        self._restoring = False
        node.add_on_set_parameters_callback(self._set_parameters)

    def open(self) -> None:
        """Loads the model while nothing runs. Raises UserError that says what is wrong."""
        self.host.open(_request(self.settings))

    def close(self) -> None:
        """Gives the model back. One that a parameter names and that was not there yet is loaded at the next start."""
        self.host.close()
        self._waiting = {}
        self._faults.clear("swap")
        parameters = [self._node.get_parameter(name) for name in sorted(RELOADING)]
        self.settings = replace(self.settings, **changes_of(parameters))

    def note(self, changes: dict[str, Any]) -> None:
        """Takes changes while nothing runs. Raises UserError where one is not allowed or the model is not there."""
        settings = self.settings.with_changes(changes, configured=False)
        _request(settings).check()
        self._apply(settings)
        self._show(changes)

    def swap(self, changes: dict[str, Any]) -> Future:
        """Loads a model beside the running one. The future's result is a sentence, or a UserError is raised."""
        return self.host.begin(_request(self.settings.with_changes(changes, configured=True)), changes)

    def _set_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Refuses what is not allowed; applies the rest at once, but for a model, which is loaded first."""
        if self._restoring:
            return SetParametersResult(successful=True)
        changes, running = changes_of(parameters), self.host.detector is not None
        reloading = {name: value for name, value in changes.items() if running and name in RELOADING}
        try:
            wanted = self.settings.with_changes(changes, configured=running)
            if reloading:
                self._want(reloading)
        except UserError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in changes.keys() - reloading.keys():
            self.host.loading.pop(name, None)  # what is said later holds
        kept = {name: getattr(self.settings, name) for name in reloading}
        self._apply(replace(wanted, **kept))
        return SetParametersResult(successful=True)

    def _want(self, changes: dict[str, Any]) -> None:
        """Loads a model by these changes: at once, or when the loader is free. Raises UserError where there is none."""
        coming = replace(self.settings, **self.host.loading)
        wanted = {**self._waiting, **changes}
        waiting = {name: value for name, value in wanted.items() if value != getattr(coming, name)}
        if waiting:
            _request(replace(coming, **waiting)).check()
        self._waiting = waiting
        if not self.host.busy:
            self._load_waiting()

    def _load_waiting(self) -> None:
        """Loads what waits for the loader, where it is not what runs by now."""
        waiting = {name: value for name, value in self._waiting.items() if value != getattr(self.settings, name)}
        self._waiting = {}
        if not waiting:
            self._faults.clear("swap")  # the running model is what is wanted
            return
        try:
            self.swap(waiting)
        except UserError as error:  # it was there when it was asked for
            self._note_swap(waiting, error)

    def _note_swap(self, changes: dict[str, Any], error: UserError | None) -> None:
        """Between two images: the new model serves, or the old one goes on."""
        if error is None:
            self._faults.clear("swap")
            self._apply(replace(self.settings, **changes))
        elif changes:
            self._faults.warn("swap", f"the model stays: {error}", answers=True)
        self._show({name for name in changes if name not in self._waiting})
        if self._waiting:
            self._load_waiting()

    def _apply(self, settings: Settings) -> None:
        self.settings = settings
        self._on_change()

    def _show(self, names: Iterable[str]) -> None:
        """Makes parameters say what the settings are."""
        self._restoring = True
        self._node.set_parameters([Parameter(name, value=getattr(self.settings, name)) for name in names])
        self._restoring = False


def _request(settings: Settings) -> Request:
    return Request(settings.model_path, settings.backend, settings.threads, len(settings.cameras))
