"""Random operations on the real core agree with the reference model (B200 to B369)."""

from hypothesis import HealthCheck, settings

from tests.model.machine import DeliveryMachine

TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = settings(
    max_examples=350,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
