package org.apache.zookeeper.server.quorum;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Field;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.zookeeper.server.quorum.flexible.QuorumMaj;

/**
 * Runs ZooKeeper's QuorumCnxManager. Commands are read from standard input, one a line, and events are written to standard
 * output. The class is in ZooKeeper's package because it uses package-private members.
 *
 * <pre>
 * arguments: OWN_SID SID=HOST:PORT ... [--multi-address]
 *
 * send SID HEX      toSend                  frame SID HEX       a message has arrived
 * connect SID       connectOne              listening           the port is open
 * initiate SID      testInitiateConnection  not-listening       it cannot be opened; exits with 3
 * drop SID          ends the link of SID    links SID=LOCAL_PORT:REMOTE_PORT ...
 * drop-all          softHalt                threads N
 * links, threads    queries                 done COMMAND        a command without an answer of its own was executed
 * </pre>
 */
public final class CnxPeer {
    private static final PrintStream OUT = System.out;

    private CnxPeer() {
    }

    public static void main(String[] args) throws Exception {
        // What others write to the standard output, a logger for instance, must not mix with the answers.
        System.setOut(System.err);
        long own = Long.parseLong(args[0]);
        Map<Long, QuorumPeer.QuorumServer> servers = new HashMap<>();
        boolean multiAddress = false;
        for (String arg : Arrays.asList(args).subList(1, args.length)) {
            if (arg.equals("--multi-address")) {
                multiAddress = true;
                continue;
            }
            String[] parts = arg.split("[=:]");
            InetSocketAddress election = new InetSocketAddress(parts[1], Integer.parseInt(parts[2]));
            // The quorum port is never opened here, but it has to differ from the election port.
            InetSocketAddress quorum = new InetSocketAddress(parts[1], 1);
            long sid = Long.parseLong(parts[0]);
            servers.put(sid, new QuorumPeer.QuorumServer(sid, quorum, election));
        }
        QuorumPeer peer = new QuorumPeer();
        peer.setMyid(own);
        peer.setTickTime(1000);
        peer.setInitLimit(5);
        peer.setSyncLimit(5);
        peer.setMultiAddressEnabled(multiAddress);
        peer.setQuorumVerifier(new QuorumMaj(servers), false);
        // Without SASL this only sets authenticators that do nothing.
        peer.initialize();
        QuorumCnxManager manager = peer.createCnxnManager();
        manager.listener.setSocketBindErrorHandler(() -> {
            print("not-listening");
            Runtime.getRuntime().halt(3);
        });
        manager.listener.start();
        awaitListening(manager);
        print("listening");
        Thread receiver = new Thread(() -> receive(manager), "receiver");
        receiver.setDaemon(true);
        receiver.start();
        execute(manager);
        manager.halt();
        Runtime.getRuntime().halt(0);
    }

    private static synchronized void print(String line) {
        OUT.print(line + "\n");
        OUT.flush();
    }

    /** The listener does not report that it has bound its port: this polls its state. */
    private static void awaitListening(QuorumCnxManager manager) throws Exception {
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
                    return;
                }
            }
            Thread.sleep(1);
        }
    }

    private static void receive(QuorumCnxManager manager) {
        try {
            while (true) {
                QuorumCnxManager.Message message = manager.pollRecvQueue(1, TimeUnit.SECONDS);
                if (message != null) {
                    print("frame " + message.sid + " " + toHex(message.buffer.array()));
                }
            }
        } catch (InterruptedException e) {
            print("error " + e);
        }
    }

    /** Executes commands until the end of the input. */
    private static void execute(QuorumCnxManager manager) throws IOException {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        String line;
        while ((line = in.readLine()) != null) {
            String[] words = line.split(" ");
            long sid = words.length > 1 ? Long.parseLong(words[1]) : 0;
            switch (words[0]) {
                case "send":
                    manager.toSend(sid, ByteBuffer.wrap(fromHex(words[2])));
                    break;
                case "connect":
                    manager.connectOne(sid);
                    break;
                case "initiate":
                    manager.testInitiateConnection(sid);
                    break;
                case "drop":
                    QuorumCnxManager.SendWorker worker = manager.senderWorkerMap.get(sid);
                    if (worker != null) {
                        worker.finish();
                    }
                    break;
                case "drop-all":
                    manager.softHalt();
                    break;
                case "links":
                    print(links(manager));
                    continue;
                case "threads":
                    print("threads " + manager.getThreadCount());
                    continue;
                default:
                    print("error no such command: " + line);
                    continue;
            }
            print("done " + words[0]);
        }
    }

    private static String links(QuorumCnxManager manager) {
        StringBuilder line = new StringBuilder("links");
        for (Map.Entry<Long, QuorumCnxManager.SendWorker> entry : manager.senderWorkerMap.entrySet()) {
            Socket socket = entry.getValue().sock;
            line.append(' ').append(entry.getKey()).append('=').append(socket.getLocalPort()).append(':')
                .append(socket.getPort());
        }
        return line.toString();
    }

    private static String toHex(byte[] bytes) {
        StringBuilder hex = new StringBuilder(2 * bytes.length);
        for (byte b : bytes) {
            hex.append(Character.forDigit((b >> 4) & 15, 16)).append(Character.forDigit(b & 15, 16));
        }
        return hex.toString();
    }

    private static byte[] fromHex(String hex) {
        byte[] bytes = new byte[hex.length() / 2];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
        }
        return bytes;
    }
}
