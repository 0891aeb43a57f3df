import java.sql.*; import java.util.UUID;
public class A {
static String openKey(Connection db, UUID project, String provider, String requestId)
        throws SQLException {
    var sql = "SELECT api_key FROM watchllm.resolve_provider_key(?, ?, request_id => ?)";
    try (var call = db.prepareStatement(sql)) {
        call.setObject(1, project);
        call.setString(2, provider);
        call.setString(3, requestId);
        try (var row = call.executeQuery()) {
            row.next();
            return row.getString(1);
        }
    } catch (SQLException error) {
        if (error.getSQLState().equals("02000")) return null;   // there is no such key
        throw error;                                            // 53000 may be tried again
    }
}

 public static void main(String[] a) throws Exception {
  try (var db = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
   var P = UUID.fromString(System.getenv("PROJECT"));
   for (int i=0;i<8;i++) System.out.println("jdbc "+openKey(db,P,"openai","j-"+i));
   System.out.println("jdbc none "+openKey(db,P,"nobody","j"));
   try { openKey(db,P,"groq","j"); } catch (SQLException e) { System.out.println("jdbc blocked "+e.getSQLState()+" "+e.getMessage()); }
  }}}
