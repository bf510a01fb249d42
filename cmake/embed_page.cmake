# Writes text files as C arrays of their lines: -DOUT=file -DFILES="page.css;page.js" gives ek_page_css and ek_page_js.
set(arrays "")
foreach(file IN LISTS FILES)
    get_filename_component(name ${file} NAME)
    string(REPLACE "." "_" name ${name})
    file(READ ${file} text)
    string(REPLACE "\\" "\\\\" text "${text}")
    string(REPLACE "\"" "\\\"" text "${text}")
    string(REPLACE "??" "?\\?" text "${text}") # no trigraphs
    string(REPLACE "\n" "\\n\",\n    \"" text "${text}")
    string(APPEND arrays "\nextern const char *const ek_${name}[];\nconst char *const ek_${name}[] = {\n    \"${text}\",\n    NULL,\n};\n")
endforeach()
file(WRITE ${OUT} "/* Written by cmake/embed_page.cmake. */\n#include <stddef.h>\n${arrays}")
