"""The detector: a managed lifecycle node for any number of cameras, with one inference for all that are due."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.timer import Timer

from keypoint_perception.errors import UserError
from keypoint_perception.ros.diagnostics import camera_status, check_name, model_status
from keypoint_perception.ros.faults import Faults
from keypoint_perception.ros.parameters import declare
from keypoint_perception.ros.rig import Rig, camera_topics
from keypoint_perception.ros.tuning import Tuning
from keypoint_perception_msgs.srv import LoadModel

_RETRY_PERIOD_S = 2.0
_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DetectorNode(LifecycleNode):
    """Images in; keypoints, skeletons and hierarchies out."""

    def __init__(self, **options: Any) -> None:
        """Declares parameters and services and, by `autostart`, configures and activates.

        Raises UserError where a parameter is not allowed.
        """
        super().__init__("detector", **options)
        try:
            settings = declare(self)
        except ParameterException as error:
            hint = ": write 1.0 for 1" if "expecting type 'DOUBLE'" in str(error) else ""
            raise UserError(f"parameters: {error}{hint}") from None
        self._state = "unconfigured"
        self.faults = Faults(self.get_logger())
        """Of the node as a whole."""
        self._rig: Rig | None = None
        self._starting: Timer | None = None
        self._asked = False
        """Whether somebody outside asked for the transition that is under way."""
        self._tuning = Tuning(self, settings, self.faults, self._apply)
        self._host = self._tuning.host
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        # Where there is simulated time it may stand still, and then these are needed most.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(settings.diagnostics_period, self._publish_diagnostics, clock=steady)
        # In a group of its own: a request waits for the loader, and images must not wait with it.
        group = MutuallyExclusiveCallbackGroup()
        self.create_service(LoadModel, "~/load_model", self._load_model, callback_group=group)
        self._guard_transitions()
        if settings.autostart:
            self._starting = self.create_timer(_RETRY_PERIOD_S, self._start, clock=steady)
            self._start()

    # Life cycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the model and opens the topics that we publish."""
        return self._transition("configure", self._configure, "inactive")

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes."""
        return self._transition("activate", lambda: self._activate(state), "active")

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribes; the model stays loaded."""
        return self._transition("deactivate", lambda: self._deactivate(state), "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Gives the model and the topics back."""
        return self._transition("cleanup", self._clean_up, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Gives everything back."""
        return self._transition("shutdown", self._clean_up, "finalized")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to the start, from where it can be configured again."""
        return self._transition("error processing", self._clean_up, "unconfigured")

    def _guard_transitions(self) -> None:
        """Has a request for a transition that is not possible refused, where rclpy would raise and not answer."""
        (service,) = (service for service in self.services if service.srv_type is ChangeState)
        change_state = service.callback

        def guarded(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
            wanted = request.transition.label or request.transition.id
            possible: dict[int | str, str] = {}
            for number, label, *_ in self._state_machine.available_transitions:  # rclpy has no public way to them
                possible |= {number: f"{label} ({number})", label: f"{label} ({number})"}
            if wanted in possible:
                self._asked = True
                try:
                    return change_state(request, response)
                finally:
                    self._asked = False
            allowed = ", ".join(dict.fromkeys(possible.values())) or "none, start a new node"
            self.get_logger().warning(f"transition {wanted} refused: the node is {self._state}, allowed are {allowed}")
            response.success = False
            return response

        service.callback = guarded

    def _transition(self, name: str, action: Callable[[], None], state: str) -> TransitionCallbackReturn:
        """Goes to `state`. rclpy swallows what a transition raises: it is said here, and the transition fails."""
        try:
            action()
        except UserError as error:
            self.faults.error("transition", str(error), answers=self._asked)
            return _FAILURE
        except Exception as error:
            text = f"{name} failed: {type(error).__name__}: {error}"
            self.faults.error("transition", text, answers=self._asked)
            return _FAILURE
        self.faults.clear("transition")
        self._state = state
        return _SUCCESS

    def _configure(self) -> None:
        settings = self._tuning.settings
        topics = camera_topics(self, settings)  # refused before anything is loaded or opened
        try:
            self._tuning.open()
            self._rig = Rig(self, settings, topics, self._host, self.faults)
        except Exception:
            self._clean_up()
            raise

    def _activate(self, state: LifecycleState) -> None:
        assert self._rig is not None
        super().on_activate(state)
        try:
            self._rig.open()
        except Exception:
            self._deactivate(state)
            raise
        if self._starting is not None:
            self.destroy_timer(self._starting)
            self._starting = None
        topics = ", ".join(camera.input.image_topic for camera in self._rig.cameras)
        self.get_logger().info(f"active, waiting for images on {topics}")

    def _deactivate(self, state: LifecycleState) -> None:
        if self._rig is not None:
            self._rig.close_inputs()
        super().on_deactivate(state)

    def _clean_up(self) -> None:
        if self._rig is not None:
            self._rig.close()
            self._rig = None
        self._tuning.close()

    def _start(self) -> None:
        """Configures and activates once; while that fails, such as for want of a model, it is tried again."""
        if self._state == "unconfigured":
            self.trigger_configure()
        if self._state == "inactive":
            self.trigger_activate()

    # Models

    def _apply(self) -> None:
        if self._rig is not None:
            self._rig.apply(self._tuning.settings)

    async def _load_model(self, request: LoadModel.Request, response: LoadModel.Response) -> LoadModel.Response:
        changes: dict[str, Any] = {"model": request.path}
        if request.threshold >= 0:  # NaN is not
            changes["threshold"] = request.threshold
        try:
            if not 0 <= changes.get("threshold", 0) <= 1:
                raise UserError(f"threshold is {request.threshold}: give 0 to 1, or a negative one to keep the present")
            if self._host.detector is None:
                response.message = self._load_and_start(changes)
            else:
                response.message = await self._tuning.swap(changes)
            response.success = True
        except UserError as error:
            response.message = str(error)
        response.model_id = self._host.detector.model.id if self._host.detector is not None else ""
        return response

    def _load_and_start(self, changes: dict[str, Any]) -> str:
        """For want of a model the node has not started: with this one it may."""
        if self._state == "finalized":
            raise UserError("the node is finalized and serves no more: start a new one")
        self._tuning.note(changes)
        if self._starting is None:
            return "noted: configure the node"
        self._start()
        if self._host.detector is None or self._state != "active":
            raise UserError(self.faults.worst()[1])
        return f"started with {self._host.detector.model.id}"

    # Diagnostics

    def _publish_diagnostics(self) -> None:
        now, name = time.monotonic(), self.get_fully_qualified_name().lstrip("/")
        check_name(self, self.faults)
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        message.status.append(model_status(name, self._state, self._host.detector, self._host.busy, self.faults))
        for camera in self._rig.cameras if self._rig is not None else ():
            if self._state == "active":
                camera.input.check_publishers()
            message.status.append(camera_status(name, camera.name, camera.statistics, camera.faults, now))
        self._diagnostics.publish(message)
        self.faults.clear("callback")  # it passed, and is told by now
