/* A PKCS#11 module that is another one, until a file in a folder says how it fails.
 *
 * hang  every operation waits until the file is gone
 * fail  every operation answers CKR_DEVICE_ERROR
 * reset the token starts again: sessions and object handles are gone (the file is taken away)
 *
 * Compiled with -DMODULE="path of the real module" and -DFOLDER="folder of these files".
 */
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long word; /* CK_ULONG; pointers have its size wherever this runs */
typedef word function(word, word, word, word, word, word, word, word);
struct list {
    unsigned char version[sizeof(word)]; /* two bytes, padded */
    function *functions[68];
};

enum { INITIALIZE = 0, FINALIZE = 1, OPEN_SESSION = 12, GET_ATTRIBUTE = 24, FIND_INIT = 26 };
enum { ENCRYPT_INIT = 29, DECRYPT_INIT = 33, DERIVE = 62 };
static const word DEVICE_ERROR = 0x30;

static struct list *real, shim;

static int told_to(const char *path) { return access(path, F_OK) == 0; }

static word call(int number, word a, word b, word c, word d, word e, word f, word g, word h)
{
    while (told_to(FOLDER "/hang"))
        usleep(5000);
    if (told_to(FOLDER "/fail"))
        return DEVICE_ERROR;
    if (told_to(FOLDER "/reset")) {
        unlink(FOLDER "/reset");
        real->functions[FINALIZE](0, 0, 0, 0, 0, 0, 0, 0);
        real->functions[INITIALIZE](0, 0, 0, 0, 0, 0, 0, 0);
    }
    return real->functions[number](a, b, c, d, e, f, g, h);
}

#define FAULTY(NUMBER)                                                              \
    static word faulty_##NUMBER(word a, word b, word c, word d, word e, word f, word g, word h) \
    {                                                                               \
        return call(NUMBER, a, b, c, d, e, f, g, h);                                \
    }
FAULTY(OPEN_SESSION)
FAULTY(GET_ATTRIBUTE)
FAULTY(FIND_INIT)
FAULTY(ENCRYPT_INIT)
FAULTY(DECRYPT_INIT)
FAULTY(DERIVE)

word C_GetFunctionList(struct list **found)
{
    if (real == NULL) {
        void *module = dlopen(MODULE, RTLD_NOW | RTLD_LOCAL);
        word (*ask)(struct list **) = module ? (word(*)(struct list **))dlsym(module, "C_GetFunctionList") : NULL;
        if (ask == NULL || ask(&real) != 0)
            return DEVICE_ERROR;
        memcpy(&shim, real, sizeof shim);
        shim.functions[OPEN_SESSION] = faulty_OPEN_SESSION;
        shim.functions[GET_ATTRIBUTE] = faulty_GET_ATTRIBUTE;
        shim.functions[FIND_INIT] = faulty_FIND_INIT;
        shim.functions[ENCRYPT_INIT] = faulty_ENCRYPT_INIT;
        shim.functions[DECRYPT_INIT] = faulty_DECRYPT_INIT;
        shim.functions[DERIVE] = faulty_DERIVE;
    }
    *found = &shim;
    return 0;
}
