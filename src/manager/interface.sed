# The text of a Varlink interface as the C definition of control_interface (manager/control.h).
1i\
extern const char control_interface[];\
const char control_interface[] =
s/[\\"]/\\&/g
s/.*/"&\\n"/
$a\
;
