package org.apache.zookeeper.server.quorum;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.nio.ByteBuffer;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import org.apache.zookeeper.Version;
import org.apache.zookeeper.server.quorum.flexible.QuorumMaj;
import org.apache.zookeeper.util.CircularBlockingQueue;

/**
 * One end of a connection between two of ZooKeeper's own QuorumCnxManagers, controlled like every other contender. It is
 * in ZooKeeper's package, since it uses package-private members.
 *
 * <pre>
 * version
 * serve --workload W --size BYTES [--listen HOST:PORT] [--at-most SECONDS]
 * drive --to HOST:PORT (same options)
 * mesh --managers N [--at-most SECONDS]
 * </pre>
 */
public final class CnxEnd {
    private static final PrintStream OUT = System.out;
    private static final long SERVE = 1;
    private static final long DRIVE = 2;
    /** The warm-up of drive, for the just-in-time compilers: frames, and nanoseconds. */
    private static final long WARM_FRAMES = 20_000;
    private static final long WARM_NANOS = 1_000_000_000;
    /** An election without answers repeats its notifications after this time, and with them failed dials. */
    private static final long RETRY_NANOS = 200_000_000;
    private static final int ROUNDS = 3;

    private final boolean serves;
    private final String workload;
    private final int size;
    private final boolean yields;
    private final QuorumCnxManager manager;
    private final AtomicLong offered = new AtomicLong();
    private final AtomicLong delivered = new AtomicLong();
    private final AtomicLong gaps = new AtomicLong();
    private final Times times = new Times();
    /** When the link was lost, in System.nanoTime, or 0. */
    private volatile long gone;

    public static void main(String[] args) throws Exception {
        // Only answers may be written to standard output; a logger, for instance, writes to standard error.
        System.setOut(System.err);
        try {
            if (args.length == 0) {
                throw new IllegalArgumentException("version, serve, drive or mesh?");
            }
            if (args[0].equals("version")) {
                say(Version.getVersion());
                Runtime.getRuntime().halt(0);
            }
            Map<String, String> options = options(args);
            endAfter(Integer.parseInt(options.getOrDefault("--at-most", "120")), "the time of --at-most is over");
            if (args[0].equals("mesh")) {
                mesh(Integer.parseInt(options.getOrDefault("--managers", "5")));
            } else {
                new CnxEnd(args[0], options).run(options);
            }
            Runtime.getRuntime().halt(0);
        } catch (Throwable e) {
            System.err.println("compare java: " + e);
            Runtime.getRuntime().halt(1);
        }
    }

    private CnxEnd(String role, Map<String, String> options) throws Exception {
        serves = role.equals("serve");
        if (!serves && !role.equals("drive")) {
            throw new IllegalArgumentException("no such command: " + role);
        }
        workload = options.get("--workload");
        if (!List.of("latency", "latest", "lossless").contains(workload)) {
            throw new IllegalArgumentException("no such workload here: " + workload);
        }
        size = Integer.parseInt(options.getOrDefault("--size", "64"));
        if (size < (workload.equals("latency") ? 1 : 16)) {
            throw new IllegalArgumentException("the payload is too short");
        }
        String variant = options.getOrDefault("--variant", "default");
        if (!List.of("default", "spin", "yield").contains(variant)) {
            throw new IllegalArgumentException("no such variant: " + variant + "; there is spin and yield");
        }
        yields = variant.equals("yield");
        Map<Long, InetSocketAddress> addresses = new HashMap<>();
        // The end with the larger sid dials, so that serve needs no address of drive.
        addresses.put(SERVE, address(serves ? options.getOrDefault("--listen", "127.0.0.1:0") : options.get("--to")));
        addresses.put(DRIVE, new InetSocketAddress("127.0.0.1", serves ? 2 : 0));
        manager = start(serves ? SERVE : DRIVE, addresses);
    }

    private void run(Map<String, String> options) throws Exception {
        int port = await(manager);
        String own = "127.0.0.1:" + port;
        Thread frames = new Thread(() -> {
            try {
                if (serves) {
                    serve();
                } else {
                    drive(own);
                }
            } catch (Throwable e) {
                System.err.println("compare java: " + e);
                Runtime.getRuntime().halt(1);
            }
            gone = System.nanoTime();
            // The command to stop may arrive a little later.
            endAfter(2, "the connection has ended");
        }, "frames");
        frames.setDaemon(true);
        if (serves) {
            String host = options.getOrDefault("--listen", "127.0.0.1:0");
            say("{\"ready\":\"" + host.substring(0, host.lastIndexOf(':')) + ":" + port + "\"}");
        }
        frames.start();
        executeCommands();
    }

    private void serve() throws Exception {
        boolean echoes = workload.equals("latency");
        boolean wasUp = false;
        long last = 0;
        while (true) {
            QuorumCnxManager.Message message = manager.pollRecvQueue(100, TimeUnit.MILLISECONDS);
            if (message == null) {
                boolean isUp = manager.connectedToPeer(DRIVE);
                if (wasUp && !isUp) {
                    return;
                }
                wasUp = isUp;
                continue;
            }
            if (echoes) {
                manager.toSend(DRIVE, message.buffer);
                continue;
            }
            times.record(now() - message.buffer.getLong(0));
            long number = message.buffer.getLong(8);
            if (number != last + 1) {
                gaps.lazySet(gaps.get() + 1);
            }
            last = number;
            delivered.lazySet(delivered.get() + 1);
        }
    }

    private void drive(String own) throws Exception {
        manager.connectOne(SERVE);
        while (!manager.connectedToPeer(SERVE)) {
            Thread.sleep(1);
        }
        if (workload.equals("latency")) {
            ping(own);
        } else {
            offer(own, workload.equals("lossless"));
        }
    }

    private void ping(String own) throws Exception {
        byte[] payload = new byte[size];
        for (long round = 1; ; round++) {
            long sent = System.nanoTime();
            manager.toSend(SERVE, ByteBuffer.wrap(payload));
            while (manager.pollRecvQueue(1, TimeUnit.SECONDS) == null) {
                if (!manager.connectedToPeer(SERVE)) {
                    return;
                }
            }
            times.record(System.nanoTime() - sent);
            if (round == WARM_FRAMES) {
                say("{\"ready\":\"" + own + "\"}");
            }
        }
    }

    /** Sends frames until the connection ends, each with its own memory, since the manager keeps them. */
    private void offer(String own, boolean waits) {
        boolean isWarm = false;
        long since = System.nanoTime();
        BlockingQueue<ByteBuffer> queue = null;
        for (long number = 1; ; number++) {
            byte[] payload = new byte[size];
            ByteBuffer buffer = ByteBuffer.wrap(payload);
            buffer.putLong(0, now());
            buffer.putLong(8, number);
            offered.lazySet(number);
            manager.toSend(SERVE, buffer);
            if (waits) {
                if (queue == null) {
                    queue = manager.queueSendMap.get(SERVE);
                }
                while (!queue.isEmpty()) {
                    if (yields) {
                        Thread.yield();
                    } else {
                        Thread.onSpinWait();
                    }
                    if (!manager.connectedToPeer(SERVE)) {
                        return;
                    }
                }
            }
            if (number % 1024 == 0) {
                if (!manager.connectedToPeer(SERVE)) {
                    return;
                }
                if (!isWarm && written() >= WARM_FRAMES && System.nanoTime() - since >= WARM_NANOS) {
                    isWarm = true;
                    say("{\"ready\":\"" + own + "\"}");
                }
            }
        }
    }

    /** The number of offered frames that the queue did not drop. */
    private long written() {
        // Reads the offered frames first, so that a frame is not counted as offered but not yet as dropped.
        long all = offered.get();
        return all - Math.min(all, dropped());
    }

    private long dropped() {
        BlockingQueue<ByteBuffer> queue = manager.queueSendMap.get(SERVE);
        return queue == null ? 0 : ((CircularBlockingQueue<ByteBuffer>) queue).getDroppedCount();
    }

    private void executeCommands() throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        long[] then = counts();
        String line;
        while ((line = in.readLine()) != null) {
            switch (line.trim()) {
                case "mark":
                    times.reset();
                    then = counts();
                    break;
                case "stop":
                    long[] now = counts();
                    if (gone != 0) {
                        now[0] = gone;
                    }
                    say(results(then, now));
                    return;
                case "":
                    break;
                default:
                    throw new IllegalArgumentException("no such command: " + line);
            }
        }
    }

    private long[] counts() {
        long[] counts = {System.nanoTime(), 0, 0, delivered.get(), gaps.get()};
        if (!serves) {
            counts[1] = offered.get();
            counts[2] = written();
        }
        return counts;
    }

    private String results(long[] then, long[] now) {
        double seconds = Math.max(1e-9, (now[0] - then[0]) / 1e9);
        if (workload.equals("latency")) {
            return serves ? "{}" : roundTrips();
        }
        if (!serves) {
            double offers = (now[1] - then[1]) / seconds;
            double writes = (now[2] - then[2]) / seconds;
            return String.format(Locale.ROOT,
                "{\"offered_per_s\":%.1f,\"written_per_s\":%.1f,\"superseded_per_s\":%.1f}",
                offers, writes, Math.max(0, offers - writes));
        }
        return String.format(Locale.ROOT,
            "{\"delivered_per_s\":%.1f,\"age_p50_us\":%s,\"age_p99_us\":%s,\"age_max_us\":%s,\"gaps\":%d}",
            (now[3] - then[3]) / seconds, times.percentile(50), times.percentile(99), times.percentile(100),
            now[4] - then[4]);
    }

    private String roundTrips() {
        List<Double> percentiles = new ArrayList<>();
        for (int n = 0; n <= 90; n += 5) {
            percentiles.add((double) n);
        }
        for (int n = 91; n <= 99; n++) {
            percentiles.add((double) n);
        }
        percentiles.addAll(List.of(99.2, 99.4, 99.6, 99.8, 99.9, 99.92, 99.94, 99.96, 99.98, 99.99, 99.995, 99.999));
        percentiles.add(100.0);
        StringBuilder list = new StringBuilder();
        for (double percentile : percentiles) {
            list.append(list.length() == 0 ? "" : ",");
            list.append('[').append(percentile).append(',').append(times.percentile(percentile)).append(']');
        }
        return "{\"rtt_p50_us\":" + times.percentile(50) + ",\"rtt_p90_us\":" + times.percentile(90)
            + ",\"rtt_p99_us\":" + times.percentile(99) + ",\"rtt_p999_us\":" + times.percentile(99.9)
            + ",\"rtt_max_us\":" + times.percentile(100) + ",\"round_trips\":" + times.count()
            + ",\"rtt_percentiles\":[" + list + "]}";
    }

    /** Measures the time until all managers are connected with each other, in several rounds. */
    private static void mesh(int managers) throws Exception {
        List<Double> rounds = new ArrayList<>();
        for (int round = 0; round < ROUNDS; round++) {
            rounds.add(meshOnce(managers));
        }
        double best = rounds.stream().mapToDouble(Double::doubleValue).min().getAsDouble();
        say(String.format(Locale.ROOT, "{\"full_ms\":%.3f,\"best_ms\":%.3f,\"rounds_ms\":%s,\"managers\":%d}",
            rounds.get(ROUNDS - 1), best, rounds, managers));
    }

    private static double meshOnce(int count) throws Exception {
        Map<Long, InetSocketAddress> addresses = new HashMap<>();
        List<ServerSocket> held = new ArrayList<>();
        for (long sid = 1; sid <= count; sid++) {
            ServerSocket socket = new ServerSocket();
            socket.bind(new InetSocketAddress("127.0.0.1", 0));
            held.add(socket);
            addresses.put(sid, new InetSocketAddress("127.0.0.1", socket.getLocalPort()));
        }
        for (ServerSocket socket : held) {
            socket.close();
        }
        List<QuorumCnxManager> managers = new ArrayList<>();
        for (long sid = 1; sid <= count; sid++) {
            managers.add(start(sid, addresses));
        }
        for (QuorumCnxManager manager : managers) {
            await(manager);
        }
        long start = System.nanoTime();
        long dialed = start - RETRY_NANOS;
        while (!managers.stream().allMatch(manager -> manager.senderWorkerMap.size() == count - 1)) {
            if (System.nanoTime() - dialed >= RETRY_NANOS) {
                dialed = System.nanoTime();
                for (QuorumCnxManager manager : managers) {
                    for (long sid = 1; sid <= count; sid++) {
                        if (sid != manager.mySid) {
                            manager.connectOne(sid);
                        }
                    }
                }
            }
            LockSupport.parkNanos(50_000);
        }
        double took = (System.nanoTime() - start) / 1e6;
        for (QuorumCnxManager manager : managers) {
            manager.halt();
        }
        return took;
    }

    private static QuorumCnxManager start(long own, Map<Long, InetSocketAddress> addresses) throws Exception {
        Map<Long, QuorumPeer.QuorumServer> servers = new HashMap<>();
        for (Map.Entry<Long, InetSocketAddress> entry : addresses.entrySet()) {
            // The quorum port is never opened here, but it has to differ from the election port.
            InetSocketAddress quorum = new InetSocketAddress("127.0.0.1", 1);
            servers.put(entry.getKey(), new QuorumPeer.QuorumServer(entry.getKey(), quorum, entry.getValue()));
        }
        QuorumPeer peer = new QuorumPeer();
        peer.setMyid(own);
        peer.setTickTime(1000);
        peer.setInitLimit(5);
        peer.setSyncLimit(5);
        peer.setQuorumVerifier(new QuorumMaj(servers), false);
        // Without SASL this only sets the authenticators that do nothing.
        peer.initialize();
        QuorumCnxManager manager = peer.createCnxnManager();
        manager.listener.setSocketBindErrorHandler(() -> {
            System.err.println("compare java: the port cannot be opened");
            Runtime.getRuntime().halt(1);
        });
        manager.listener.start();
        return manager;
    }

    /** Waits until the listener has bound its port. It does not report it, so its state is polled. */
    private static int await(QuorumCnxManager manager) throws Exception {
        Field handlers = QuorumCnxManager.Listener.class.getDeclaredField("listenerHandlers");
        handlers.setAccessible(true);
        while (true) {
            List<?> list = (List<?>) handlers.get(manager.listener);
            if (list != null && !list.isEmpty()) {
                Object handler = list.get(0);
                Field socket = handler.getClass().getDeclaredField("serverSocket");
                socket.setAccessible(true);
                ServerSocket server = (ServerSocket) socket.get(handler);
                if (server != null && server.isBound()) {
                    return server.getLocalPort();
                }
            }
            Thread.sleep(1);
        }
    }

    private static Map<String, String> options(String[] args) {
        List<String> known = List.of("--workload", "--variant", "--size", "--frames-per-call", "--peers", "--listen",
            "--to", "--at-most", "--managers");
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < args.length; i += 2) {
            if (!known.contains(args[i]) || i + 1 == args.length) {
                throw new IllegalArgumentException("no such option, or nothing after it: " + args[i]);
            }
            options.put(args[i], args[i + 1]);
        }
        if (!options.getOrDefault("--peers", "1").equals("1")) {
            throw new IllegalArgumentException("only one peer is supported");
        }
        return options;
    }

    private static InetSocketAddress address(String text) {
        if (text == null) {
            throw new IllegalArgumentException("--to is missing");
        }
        int colon = text.lastIndexOf(':');
        return new InetSocketAddress(text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
    }

    private static void endAfter(int seconds, String why) {
        Thread thread = new Thread(() -> {
            try {
                TimeUnit.SECONDS.sleep(seconds);
            } catch (InterruptedException e) {
                return;
            }
            System.err.println("compare java: " + why);
            Runtime.getRuntime().halt(1);
        }, "end");
        thread.setDaemon(true);
        thread.start();
    }

    /** Nanoseconds since 1970. */
    private static long now() {
        Instant now = Instant.now();
        return now.getEpochSecond() * 1_000_000_000 + now.getNano();
    }

    private static synchronized void say(String line) {
        OUT.print(line + "\n");
        OUT.flush();
    }

    /** A histogram of times in nanoseconds, with a precision of one part in 512. */
    private static final class Times {
        private static final int FINE = 1024;
        private long[] counts = new long[FINE * 48];
        private long count;
        private long max;

        synchronized void record(long time) {
            time = Math.max(0, time);
            counts[index(time)]++;
            count++;
            max = Math.max(max, time);
        }

        synchronized void reset() {
            counts = new long[counts.length];
            count = 0;
            max = 0;
        }

        synchronized long count() {
            return count;
        }

        /** In microseconds, or null. */
        synchronized String percentile(double percentile) {
            if (count == 0) {
                return "null";
            }
            long before = (long) Math.max(1, Math.ceil(percentile / 100 * count));
            int index = 0;
            for (long seen = counts[0]; seen < before; seen += counts[index]) {
                index++;
            }
            long time = percentile == 100 ? max : Math.min(max, value(index));
            return String.format(Locale.ROOT, "%.3f", time / 1e3);
        }

        /** Each power of two from 1024 on has 512 buckets. */
        private int index(long time) {
            int shift = Math.max(0, 64 - Long.numberOfLeadingZeros(time) - 10);
            return Math.min(counts.length - 1, shift * (FINE / 2) + (int) (time >> shift));
        }

        /** The longest time in a bucket. */
        private static long value(int index) {
            int shift = Math.max(0, index / (FINE / 2) - 1);
            return ((long) (index - shift * (FINE / 2)) + 1 << shift) - 1;
        }
    }
}
