// Reads of some tables see what was written a moment ago: they go to the primary. The rest is Tidegate's choice.

#include "routing.h"
#include <string.h>

static const char *const FRESH[] = {"products", "prices"};

static bool is(const routing_string_t *text, const char *other) {
    return text->len == strlen(other) && memcmp(text->ptr, other, text->len) == 0;
}

static bool is_fresh(const exports_tidegate_policy_route_shape_t *shape) {
    for (size_t table = 0; table < shape->tables.len; table++)
        for (size_t fresh = 0; fresh < sizeof FRESH / sizeof *FRESH; fresh++)
            if (is(&shape->tables.ptr[table].name, FRESH[fresh]))
                return true;
    return false;
}

bool exports_routing_init(routing_string_t *config, routing_plugin_info_t *info, routing_string_t *error) {
    bool empty = config->len == 0 || is(config, "{}");
    routing_string_free(config);
    if (!empty) {
        routing_string_dup(error, "this policy has no settings");
        return false;
    }
    routing_string_dup(&info->name, "fresh-reads");
    routing_string_dup(&info->version, "0.1.0");
    routing_string_dup(&info->description, "Reads of some tables go to the primary");
    return true;
}

void exports_tidegate_policy_route_plan_route(exports_tidegate_policy_route_shape_t *shape,
                                              exports_tidegate_policy_route_route_plan_t *plan) {
    memset(plan, 0, sizeof *plan);
    bool fresh = is_fresh(shape);
    plan->target.tag = fresh ? EXPORTS_TIDEGATE_POLICY_ROUTE_TARGET_PRIMARY
                             : EXPORTS_TIDEGATE_POLICY_ROUTE_TARGET_BUILT_IN;
    plan->label.is_some = fresh;
    if (fresh)
        routing_string_dup(&plan->label.val, "fresh");
    exports_tidegate_policy_route_shape_free(shape);
}

void exports_tidegate_policy_route_weigh(
    exports_tidegate_policy_route_list_replica_metrics_t *replicas,
    exports_tidegate_policy_route_list_weight_t *weights) {
    exports_tidegate_policy_route_list_replica_metrics_free(replicas);
    memset(weights, 0, sizeof *weights); // each keeps its base weight
}

void exports_tidegate_policy_route_cluster_changed(
    exports_tidegate_policy_route_cluster_state_t *state) {
    exports_tidegate_policy_route_cluster_state_free(state);
}

// Never asked, since no plan says `ask`.
int64_t exports_tidegate_policy_route_decide(uint32_t id,
                                             exports_tidegate_policy_route_session_flags_t session,
                                             uint64_t fingerprint_low, uint64_t end_user_hash) {
    return -3;
}
