// Prints one frame a line for every message that Apache Kafka can serialise, in every version: class name, version,
// variant, bytes in hex, and the same value as JSON, all told apart by tabs. See README.md beside this file.

import com.fasterxml.jackson.databind.JsonNode;
import java.lang.reflect.Field;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.RawTaggedField;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;

public class GoldenFrames {
    /**
     * full: nothing is default or null. sparse: everything is, and null where null may be sent. unknown: as full, and every
     * struct that may have tagged fields has two that nobody has declared.
     */
    enum Variant { full, sparse, unknown }

    private static final int[] UNKNOWN_TAGS = {5000, 2_000_000_000};

    /** Makes every value of a message different from the others, so that swapped fields show. */
    private int counter = 0;
    private boolean hasUnknownTags = false;

    public static void main(String[] arguments) throws Exception {
        for (ApiMessageType api : ApiMessageType.values()) {
            for (short version = api.lowestSupportedVersion(); version <= api.highestSupportedVersion(true); version++) {
                print(api.newRequest().getClass(), version);
                print(api.newResponse().getClass(), version);
            }
        }
        for (String name : arguments) {
            Class<?> type = Class.forName(name);
            short lowest = type.getField("LOWEST_SUPPORTED_VERSION").getShort(null);
            short highest = type.getField("HIGHEST_SUPPORTED_VERSION").getShort(null);
            for (short version = lowest; version <= highest; version++) {
                print(type, version);
            }
        }
    }

    private static void print(Class<?> type, short version) throws Exception {
        for (Variant variant : Variant.values()) {
            GoldenFrames builder = new GoldenFrames();
            Object message = builder.build(type, version, variant);
            if (variant == Variant.unknown && !builder.hasUnknownTags) {
                continue;
            }
            var cache = new ObjectSerializationCache();
            ByteBuffer bytes = ByteBuffer.allocate(((Message) message).size(cache, version));
            ((Message) message).write(new ByteBufferAccessor(bytes), cache, version);
            JsonNode json = (JsonNode) Class.forName(type.getName() + "JsonConverter")
                .getMethod("write", type, short.class).invoke(null, message, version);
            String name = type.getSimpleName().replaceFirst("Data$", "");
            System.out.println(String.join("\t", name, "" + version, "" + variant, HexFormat.of().formatHex(bytes.array()), "" + json));
        }
    }

    private Object build(Class<?> type, short version, Variant variant) throws Exception {
        Object message = type.getDeclaredConstructor().newInstance();
        Schema schema = ((Schema[]) type.getField("SCHEMAS").get(null))[version];
        for (BoundField bound : schema.fields()) {
            if (bound.def.type instanceof TaggedFields) {
                Field inner = TaggedFields.class.getDeclaredField("fields");
                inner.setAccessible(true);
                for (Object each : ((Map<?, ?>) inner.get(bound.def.type)).values()) {
                    var tagged = (org.apache.kafka.common.protocol.types.Field) each;
                    set(message, tagged.name, tagged.type, version, variant, true);
                }
                if (variant == Variant.unknown) {
                    for (int tag : UNKNOWN_TAGS) {
                        ((Message) message).unknownTaggedFields().add(new RawTaggedField(tag, bytes(3)));
                    }
                    hasUnknownTags = true;
                }
            } else {
                set(message, bound.def.name, bound.def.type, version, variant, false);
            }
        }
        return message;
    }

    private void set(Object message, String name, org.apache.kafka.common.protocol.types.Type wireType, short version,
                     Variant variant, boolean tagged) throws Exception {
        Field field = find(message.getClass(), name);
        field.setAccessible(true);
        if (variant != Variant.sparse) {
            field.set(message, value(field.getGenericType(), version, variant));
        } else if (wireType.isNullable() && !tagged) {
            field.set(message, null);
        } else if (isRecords(field.getType())) {
            field.set(message, records(field.getType(), new byte[0]));
        }
    }

    private static Field find(Class<?> type, String snakeName) {
        for (Field field : type.getDeclaredFields()) {
            if (field.getName().equalsIgnoreCase(snakeName.replace("_", ""))) {
                return field;
            }
        }
        throw new IllegalStateException(type + " has no field " + snakeName);
    }

    private Object value(Type type, short version, Variant variant) throws Exception {
        counter++;
        if (type instanceof ParameterizedType) {
            return fill(new ArrayList<Object>(), ((ParameterizedType) type).getActualTypeArguments()[0], version, variant);
        }
        Class<?> plain = (Class<?>) type;
        if (plain == boolean.class) {
            return true;
        } else if (plain == byte.class || plain == Byte.class) {
            return (byte) (counter % 126 + 2);
        } else if (plain == short.class || plain == Short.class) {
            return (short) (0x0100 + counter);
        } else if (plain == int.class || plain == Integer.class) {
            // Unsigned 16 bits are an int in Java, so stay below.
            return 0x8000 + counter;
        } else if (plain == long.class || plain == Long.class) {
            return 0x0102030400000000L + counter;
        } else if (plain == double.class) {
            return counter + 0.5;
        } else if (plain == String.class) {
            // Every fourth is too long for a length of one byte.
            return "é" + counter + (counter % 4 == 0 ? "-".repeat(130) : "");
        } else if (plain == byte[].class) {
            return bytes(counter % 4 == 0 ? 300 : 3);
        } else if (plain == ByteBuffer.class) {
            return ByteBuffer.wrap(bytes(counter % 4 == 0 ? 300 : 3));
        } else if (plain == Uuid.class) {
            return new Uuid(0x1112131400000000L + counter, counter);
        } else if (isRecords(plain)) {
            return records(plain, bytes(counter % 4 == 0 ? 300 : 70));
        } else if (Collection.class.isAssignableFrom(plain)) {
            return collection(plain, version, variant);
        } else {
            return build(plain, version, variant);
        }
    }

    private static boolean isRecords(Class<?> type) {
        return type.getSimpleName().equals("BaseRecords");
    }

    /** By name, because the package of these classes is not the same in every release. */
    private static Object records(Class<?> baseRecords, byte[] bytes) throws Exception {
        return Class.forName(baseRecords.getPackageName() + ".MemoryRecords")
            .getMethod("readableRecords", ByteBuffer.class).invoke(null, ByteBuffer.wrap(bytes));
    }

    @SuppressWarnings("unchecked")
    private Object collection(Class<?> plain, short version, Variant variant) throws Exception {
        Type element = ((ParameterizedType) plain.getGenericSuperclass()).getActualTypeArguments()[0];
        return fill((Collection<Object>) plain.getDeclaredConstructor().newInstance(), element, version, variant);
    }

    private Collection<Object> fill(Collection<Object> collection, Type element, short version, Variant variant)
        throws Exception {
        int size = element == Integer.class && counter % 8 == 0 ? 130 : 2;
        for (int i = 0; i < size; i++) {
            collection.add(value(element, version, variant));
        }
        return collection;
    }

    private byte[] bytes(int size) {
        byte[] bytes = new byte[size];
        for (int i = 0; i < size; i++) {
            bytes[i] = (byte) (counter + i);
        }
        return bytes;
    }
}
