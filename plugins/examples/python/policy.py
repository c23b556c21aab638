"""Reads of some tables see what was written a moment ago: they go to the primary. The rest is Tidegate's choice."""

import json

from componentize_py_types import Err
from wit_world import WitWorld as World
from wit_world.exports import Route as RouteInterface
from wit_world.exports.route import Priority, RoutePlan, Target_BuiltIn, Target_Primary
from wit_world.imports.types import PluginInfo


class WitWorld(World):
    tables: list[str] = []

    def init(self, config: str) -> PluginInfo:
        settings = json.loads(config or "{}")
        WitWorld.tables = settings.pop("tables", [])
        if settings:
            raise Err(f"there is no setting {next(iter(settings))}")
        return PluginInfo("fresh-reads", "0.1.0", "Reads of some tables go to the primary")


class Route(RouteInterface):
    def plan_route(self, shape):
        if any(table.name in WitWorld.tables for table in shape.tables):
            return RoutePlan(Target_Primary(), Priority.NORMAL, "fresh")
        return RoutePlan(Target_BuiltIn(), Priority.NORMAL, None)

    def weigh(self, replicas):
        return []

    def cluster_changed(self, state):
        pass

    def decide(self, id, session, fingerprint_low, end_user_hash):
        return -3  # never asked, since no plan says `ask`
