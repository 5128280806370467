// The yardstick: the least that balances TCP over IPv4 by address translation, and programs to measure with.
//
// A service table, a flow table, round robin, checksums; nothing else: one family, no options, no replies, no state, no
// counters, no time to live, no tunnel. What a full balancer costs is told as a ratio to this.
//
// Built with clang -O2 -g -target bpf. FLOW_TABLE is BPF_MAP_TYPE_HASH or BPF_MAP_TYPE_LRU_HASH, FLOWS how many it has room for.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stddef.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define __uint(name, value) int(*name)[value]
#define __type(name, value) typeof(value) *name

#ifndef FLOW_TABLE
#define FLOW_TABLE BPF_MAP_TYPE_HASH
#endif

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_l3_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 size) = (void *)10;
static long (*bpf_l4_csum_replace)(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) = (void *)11;
static long (*bpf_tail_call)(void *ctx, void *programs, __u32 index) = (void *)12;
static long (*bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*bpf_fib_lookup)(void *ctx, struct bpf_fib_lookup *query, int size, __u32 flags) = (void *)69;
static __u64 (*bpf_ktime_get_coarse_ns)(void) = (void *)160;
static long (*bpf_redirect)(__u32 ifindex, __u64 flags) = (void *)23;

struct service_key {
	__be32 address;
	__be16 port;
	__u16 protocol;
};

struct service {
	__u64 cursor;
	__u32 first; // of its backends
	__u32 count;
};

struct backend {
	__be32 address;
	__be16 port;
	__u8 mac[6];
};

struct flow_key {
	__be32 source;
	__be32 destination;
	__be16 source_port;
	__be16 destination_port;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct service_key);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

struct {
	__uint(type, FLOW_TABLE);
	__uint(max_entries, FLOWS);
	__type(key, struct flow_key);
	__type(value, struct backend);
} flows SEC(".maps");

INLINE struct backend *choose(const struct flow_key *key, struct service *service)
{
	struct backend *backend = bpf_map_lookup_elem(&flows, key);
	if (backend)
		return backend;
	__u32 index = service->first + __sync_fetch_and_add(&service->cursor, 1) % service->count;
	backend = bpf_map_lookup_elem(&backends, &index);
	if (backend)
		bpf_map_update_elem(&flows, key, backend, BPF_ANY);
	return backend;
}

struct headers {
	struct ethhdr ethernet;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

// The backend of a frame, or null if it is none of a service's.
INLINE struct backend *find(const struct headers *h, const void *end)
{
	if ((const void *)(h + 1) > end || h->ethernet.h_proto != __builtin_bswap16(ETH_P_IP))
		return NULL;
	if (h->ip.ihl != 5 || h->ip.protocol != 6)
		return NULL;
	struct service_key wanted = {h->ip.daddr, h->tcp.dest, h->ip.protocol};
	struct service *service = bpf_map_lookup_elem(&services, &wanted);
	if (!service || !service->count)
		return NULL;
	struct flow_key key = {h->ip.saddr, h->ip.daddr, h->tcp.source, h->tcp.dest, h->ip.protocol};
	return choose(&key, service);
}

// RFC 1624: a field's checksum after words of it went from one sum to another.
INLINE __u16 updated(__u16 check, __u32 from, __u32 to)
{
	__u32 sum = (__u16)~check + (~from & 0xffff) + ((~from) >> 16) + (to & 0xffff) + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

INLINE void translate(struct headers *h, const struct backend *to)
{
	__u16 sum = updated(h->tcp.check, h->ip.daddr, to->address);
	h->tcp.check = updated(sum, h->tcp.dest, to->port);
	h->ip.check = updated(h->ip.check, h->ip.daddr, to->address);
	h->ip.daddr = to->address;
	h->tcp.dest = to->port;
	__builtin_memcpy(h->ethernet.h_source, h->ethernet.h_dest, 6);
	__builtin_memcpy(h->ethernet.h_dest, to->mac, 6);
}

SEC("xdp") int xdp_dnat(struct xdp_md *ctx)
{
	struct headers *h = (void *)(long)ctx->data;
	struct backend *to = find(h, (void *)(long)ctx->data_end);
	if (!to)
		return XDP_PASS;
	translate(h, to);
	return XDP_TX;
}

SEC("classifier") int tc_dnat(struct __sk_buff *skb)
{
	struct headers *h = (void *)(long)skb->data;
	struct backend *to = find(h, (void *)(long)skb->data_end);
	if (!to)
		return TC_ACT_UNSPEC;
	__be32 address = h->ip.daddr;
	__be16 port = h->tcp.dest;
	h->ip.daddr = to->address;
	h->tcp.dest = to->port;
	__builtin_memcpy(h->ethernet.h_source, h->ethernet.h_dest, 6);
	__builtin_memcpy(h->ethernet.h_dest, to->mac, 6);
	// The helpers know a checksum that is left to the card.
	__u32 check = offsetof(struct headers, tcp.check);
	bpf_l4_csum_replace(skb, check, address, to->address, BPF_F_PSEUDO_HDR | 4);
	bpf_l4_csum_replace(skb, check, port, to->port, 2);
	bpf_l3_csum_replace(skb, offsetof(struct headers, ip.check), address, to->address, 4);
	return bpf_redirect(skb->ifindex, 0);
}

SEC("xdp") int xdp_bare(struct xdp_md *ctx)
{
	return XDP_TX;
}

// The interface of the other node, where programs send by another than the packet came from.
#define SECOND_IF 11

// The least that sends.
SEC("xdp") int xdp_forward(struct xdp_md *ctx)
{
	return bpf_redirect(SECOND_IF, 0);
}

// The least that balances: the tuple's hash is all the state there is.
SEC("xdp") int xdp_hash(struct xdp_md *ctx)
{
	struct headers *h = (void *)(long)ctx->data;
	if ((void *)(h + 1) > (void *)(long)ctx->data_end || h->ethernet.h_proto != __builtin_bswap16(ETH_P_IP))
		return XDP_PASS;
	if (h->ip.ihl != 5 || h->ip.protocol != 6)
		return XDP_PASS;
	struct service_key wanted = {h->ip.daddr, h->tcp.dest, h->ip.protocol};
	struct service *service = bpf_map_lookup_elem(&services, &wanted);
	if (!service || !service->count)
		return XDP_PASS;
	__u32 hash = (h->ip.saddr ^ h->ip.daddr ^ ((__u32)h->tcp.source << 16 | h->tcp.dest)) * 0x9e3779b1;
	__u32 index = service->first + (hash >> 16) % service->count;
	struct backend *to = bpf_map_lookup_elem(&backends, &index);
	if (!to)
		return XDP_PASS;
	translate(h, to);
	return bpf_redirect(SECOND_IF, 0);
}

SEC("classifier") int tc_bare(struct __sk_buff *skb)
{
	return TC_ACT_UNSPEC;
}

// --- Single steps -----------------------------------------------------------------------------------------------------

// Where a packet to node 2 would go.
SEC("xdp") int xdp_route(struct xdp_md *ctx)
{
	struct bpf_fib_lookup query = {.family = 2, .ifindex = ctx->ingress_ifindex};
	query.ipv4_src = __builtin_bswap32(0xc0000201);
	query.ipv4_dst = __builtin_bswap32(0xc0000202);
	return bpf_fib_lookup(ctx, &query, sizeof(query), 0) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp") int xdp_route6(struct xdp_md *ctx)
{
	struct bpf_fib_lookup query = {.family = 10, .ifindex = ctx->ingress_ifindex};
	query.ipv6_src[0] = query.ipv6_dst[0] = __builtin_bswap32(0x20010db8);
	query.ipv6_src[3] = __builtin_bswap32(1);
	query.ipv6_dst[3] = __builtin_bswap32(2);
	return bpf_fib_lookup(ctx, &query, sizeof(query), 0) ? XDP_ABORTED : XDP_TX;
}

// Room for the tunnel's headers.
SEC("xdp") int xdp_grow(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, -64) ? XDP_ABORTED : XDP_TX;
}

SEC("xdp") int xdp_clock(struct xdp_md *ctx)
{
	return bpf_ktime_get_coarse_ns() ? XDP_TX : XDP_ABORTED;
}

// A key that is not there.
SEC("xdp") int xdp_lookup(struct xdp_md *ctx)
{
	struct flow_key key = {.source = 1, .protocol = 6};
	return bpf_map_lookup_elem(&flows, &key) ? XDP_ABORTED : XDP_TX;
}

// --- Frames in flight -------------------------------------------------------------------------------------------------

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, 4);
	__uint(value_size, 4);
} next SEC(".maps");

struct frame {
	__u8 bytes[64];
	__u32 flows; // ports from 1024 on
	__u32 counter;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct frame);
} frame SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

// The kernel hands a frame that was rewritten to the program again, as it is now: write it anew, from the next client's
// port, and go on in the program under test.
SEC("xdp") int xdp_refill(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct frame *from = bpf_map_lookup_elem(&frame, &zero);
	struct headers *h = (void *)(long)ctx->data;
	if (!from || (void *)h + 64 > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(h, from->bytes, 64);
	__u32 turn = ++from->counter;
	if (turn >= from->flows)
		from->counter = 0;
	__be16 port = __builtin_bswap16(1024 + turn);
	h->tcp.check = updated(h->tcp.check, h->tcp.source, port);
	h->tcp.source = port;
	bpf_tail_call(ctx, &next, 0);
	return XDP_ABORTED;
}

INLINE void note_arrival(void)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&arrived, &zero);
	if (count)
		*count += 1;
}

// At the far end of the cable.
SEC("xdp") int xdp_sink(struct xdp_md *ctx)
{
	note_arrival();
	return XDP_DROP;
}

// The same for what comes as a packet buffer.
SEC("classifier") int tc_sink(struct __sk_buff *skb)
{
	note_arrival();
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "GPL";
