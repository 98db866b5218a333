/* Every map: who writes, who reads, what a full one means.
 * CY_MAP(type, key, value, name, entries, flags) is expanded for the loader in use. */
#pragma once

/* Agent writes at start; programs read. */
CY_MAP("array", __u32, struct config, config, 1, 0)
/* Agent writes; tc reads. An interface that isn't here passes nothing. Full: the start is refused. */
CY_MAP("hash", __u32, struct endpoint, endpoints, 16384, BPF_F_NO_PREALLOC)
/* Namespace cookie to identity. Agent writes; socket hooks read. */
CY_MAP("hash", __u64, struct caller, callers, 16384, BPF_F_NO_PREALLOC)
/* Platform addresses only. Agent writes; all read. Full: the start is refused. */
CY_MAP("hash", struct address, struct owner, ipcache, 131072, BPF_F_NO_PREALLOC)
/* Interfaces to other nodes. Agent writes; tc reads: addresses of other nodes may come in by these alone. */
CY_MAP("hash", __u32, __u32, underlays, 64, BPF_F_NO_PREALLOC)
/* The switch of the policy's atomic swap. Agent writes; all read. */
CY_MAP("hash", __u32, struct identity, identities, 65536, BPF_F_NO_PREALLOC)
/* Agent writes under an epoch that isn't in force yet; all read. Full: the change is refused, the old rules stay. */
CY_MAP("hash", struct policy_key, struct rule, policy, 1048576, BPF_F_NO_PREALLOC)
/* Egress to networks, per consumer. As policy. */
CY_MAP("lpm_trie", struct external_key, struct rule, external, 262144, BPF_F_NO_PREALLOC)
/* Judged before everything else. Agent writes at start; all read. The value is a reason. */
CY_MAP("lpm_trie", struct floor_key, __u32, floor_prefixes, 4096, BPF_F_NO_PREALLOC)
/* Agent writes, socket hooks read. */
CY_MAP("hash", struct service_key, struct service, services, 262144, BPF_F_NO_PREALLOC)
CY_MAP("hash", struct backend_key, struct backend, backends, 262144, BPF_F_NO_PREALLOC)
/* Backends that callers stay with, by set. Agent writes, socket hooks read. */
CY_MAP("hash", struct member_key, __u32, members, 262144, BPF_F_NO_PREALLOC)
/* Socket hooks write and read. The oldest entry makes room: its caller is given any backend at its next call. */
CY_MAP("lru_hash", struct affinity_key, struct affinity, affinity, 65536, 0)
/* Addresses behind names. Agent writes; all read. Full: the name isn't answered. */
CY_MAP("hash", struct learned_key, struct rule, learned, 262144, BPF_F_NO_PREALLOC)
/* Agent writes; tc and socket hooks read. */
CY_MAP("hash", __u32, struct limit, limits, 65536, BPF_F_NO_PREALLOC)
/* One for each identity. Agent makes and removes; programs write. */
CY_MAP("hash", __u32, struct usage, usages, 65536, BPF_F_NO_PREALLOC)
/* A table of flows for each endpoint, so that nobody pushes out another's. Agent makes them; tc writes
 * and reads. The oldest entry makes room: TCP is then judged anew, UDP replies are lost. */
CY_MAP_OF_MAPS(__u32, "lru_hash", struct flow_id, struct flow_state, conntrack, 16384, 4096)
/* Programs write, the agent drains. Full: counted, the verdict stands. */
CY_MAP("hash", struct edge, struct edge_count, edges, 131072, BPF_F_NO_PREALLOC)
/* Programs count failures; the agent reports any as a problem of the node. */
CY_MAP("percpu_array", __u32, __u64, counters, 16, 0)
CY_STORAGE(translated, struct translations)
CY_STORAGE(counted, struct counted)

#define COUNT_CONNTRACK_FULL 0
#define COUNT_FRAGMENTS_FULL 1
#define COUNT_EDGES_FULL 2
#define COUNT_STORAGE_FAILED 3
#define COUNT_BACKEND_MISSING 4
#define COUNT_CONFIG_MISSING 5
#define COUNT_REWRITE_FAILED 6

static inline void count(__u32 what)
{
	__u64 *cell = map_lookup(counters, &what);
	if (cell)
		*cell += 1;
}
